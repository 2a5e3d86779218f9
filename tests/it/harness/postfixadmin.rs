//! PostfixAdmin's own tables, made by PostfixAdmin: Debian's package, unpacked, and its `upgrade.php` run by PHP.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use super::temp_dir;

/// The unpacked package; `None` with a reason where it cannot be had.
static PACKAGE: OnceLock<Result<PathBuf, String>> = OnceLock::new();

/// Lets PostfixAdmin make its tables in the database of a `[mail] url`. `Err`: why it cannot be had here. Panics where it
/// can be had and fails.
pub fn make_tables(url: &str) -> Result<(), String> {
    let package = PACKAGE.get_or_init(unpack).as_ref().map_err(String::clone)?;
    if let Some(path) = url.strip_prefix("sqlite://") {
        // It wants the file to be there.
        std::fs::File::options().create(true).append(true).open(path).expect("a database file");
    }
    let keep = temp_dir();
    let folder = keep.path().join("postfixadmin");
    succeed(Command::new("cp").arg("-r").arg(package.join("usr/share/postfixadmin")).arg(&folder)).expect("copied");
    for link in ["config.inc.php", "config.local.php", "templates_c"] {
        // The package has links into /etc and /var, which are not unpacked there.
        let _ = std::fs::remove_file(folder.join(link));
    }
    std::fs::create_dir_all(folder.join("templates_c")).expect("a folder");
    let shipped = package.join("etc/postfixadmin/config.inc.php");
    std::fs::copy(shipped, folder.join("config.inc.php")).expect("its configuration");
    write(&folder, "dbconfig.inc.php", "<?php\n");
    write(&folder, "config.local.php", &format!("<?php\n$CONF['configured'] = true;\n{}", connection(url)));
    let made = succeed(Command::new("php").arg("upgrade.php").current_dir(folder.join("public"))).expect("upgrade.php");
    let said = String::from_utf8_lossy(&made.stdout).into_owned();
    assert!(!said.contains("Fatal error"), "{said}");
    Ok(())
}

fn connection(url: &str) -> String {
    let set = |name: &str, value: &str| format!("$CONF['database_{name}'] = '{value}';\n");
    if let Some(path) = url.strip_prefix("sqlite://") {
        return set("type", "sqlite") + &set("name", path);
    }
    let rest = url.strip_prefix("postgres://").expect("a database of one kind or the other");
    let (user, rest) = rest.split_once('@').expect("a user");
    let (host, database) = rest.split_once('/').expect("a database");
    let (address, port) = host.split_once(':').expect("a port");
    [("type", "pgsql"), ("host", address), ("port", port), ("user", user), ("password", ""), ("name", database)]
        .map(|(name, value)| set(name, value))
        .concat()
}

/// An installed package, else Debian's, fetched and unpacked beside the other things of this test run.
fn unpack() -> Result<PathBuf, String> {
    let needed = "needs Debian's php-cli, php-sqlite3, php-pgsql, php-mbstring and its package postfixadmin";
    let php = Command::new("php").arg("-m").output().map_err(|_| needed.to_owned())?;
    let modules = String::from_utf8_lossy(&php.stdout).to_lowercase();
    if !["sqlite3", "pgsql", "mbstring"].iter().all(|module| modules.contains(module)) {
        return Err(needed.to_owned());
    }
    if Path::new("/usr/share/postfixadmin/public/upgrade.php").exists() {
        return Ok(PathBuf::from("/"));
    }
    let folder = temp_dir().keep();
    succeed(Command::new("apt-get").args(["download", "postfixadmin"]).current_dir(&folder))
        .map_err(|error| format!("{needed}: {error}"))?;
    let all = std::fs::read_dir(&folder).map_err(|error| error.to_string())?;
    let package = all.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|end| end == "deb"));
    let package = package.ok_or_else(|| needed.to_owned())?;
    let unpacked = folder.join("package");
    succeed(Command::new("dpkg-deb").arg("-x").arg(package).arg(&unpacked))?;
    Ok(unpacked)
}

fn succeed(command: &mut Command) -> Result<Output, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(output);
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn write(folder: &Path, name: &str, content: &str) {
    std::fs::write(folder.join(name), content).expect("a file of PostfixAdmin");
}
