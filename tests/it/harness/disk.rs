//! A disk of its own for a daemon's data: a file system on a loop device whose power can be cut, or whose writes can fail.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::daemon::Daemon;
use super::wait_for;

/// A mounted file system in a file. Unmounted and detached when dropped.
pub struct Disk {
    pub mount: PathBuf,
    device: String,
    kind: FileSystem,
    /// The device of a log that stands apart.
    log: Option<String>,
    /// What stands between the loop device and the octets, on a disk that can fail.
    failing: Option<Failing>,
    _folder: tempfile::TempDir,
}

/// What is made on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    Xfs,
    Ext4,
    /// XFS whose own log is on a device that never fails: an error of the others passes and does not end it.
    XfsLogApart,
}

struct Failing {
    server: Child,
    fuse: PathBuf,
    /// While this file exists every write to the device fails.
    switch: PathBuf,
}

/// XFS wants 300 MiB; the file is sparse.
const SIZE: &str = "400M";
const LOG_SIZE: &str = "64M";

impl Disk {
    /// A healthy disk, whose power `cut_power_of` cuts.
    ///
    /// **Errors**: why this machine cannot have one, in words.
    pub fn new(kind: FileSystem) -> Result<Self, String> {
        let folder = super::temp_dir();
        let image = folder.path().join("image");
        succeed("coreutils", "truncate", &["-s", SIZE, &text(&image)])?;
        Self::mounted(folder, &image, kind, None)
    }

    /// A disk whose writes can be made to fail, as a dying drive's do. Its octets are in memory.
    ///
    /// **Errors**: as `new`.
    pub fn fallible(kind: FileSystem) -> Result<Self, String> {
        let folder = super::temp_dir();
        let (fuse, switch) = (folder.path().join("nbd"), folder.path().join("fail"));
        std::fs::create_dir(&fuse).map_err(|error| error.to_string())?;
        let server = Command::new("nbdfuse")
            .arg(format!("{}/", fuse.display()))
            .args(["--command", "nbdkit", "-s", "--filter=error", "memory", SIZE, "error-pwrite-rate=100%"])
            .arg(format!("error-file={}", switch.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("nbdfuse (Debian package libnbd-bin): {error}"))?;
        let image = fuse.join("nbd");
        let failing = Failing { server, fuse, switch };
        for _ in 0..250 {
            if image.exists() {
                return Self::mounted(folder, &image, kind, Some(failing));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(failing);
        Err("nbdfuse shows no device here (it needs nbdkit and /dev/fuse)".to_owned())
    }

    fn mounted(
        folder: tempfile::TempDir,
        image: &Path,
        kind: FileSystem,
        failing: Option<Failing>,
    ) -> Result<Self, String> {
        let mount = folder.path().join("disk");
        std::fs::create_dir(&mount).map_err(|error| error.to_string())?;
        let device = succeed("mount", "losetup", &["--find", "--show", &text(image)])?.trim().to_owned();
        let mut disk = Self { mount, device, kind, log: None, failing, _folder: folder };
        match kind {
            FileSystem::Xfs => succeed("xfsprogs", "mkfs.xfs", &["-q", "-f", &disk.device])?,
            FileSystem::Ext4 => succeed("e2fsprogs", "mkfs.ext4", &["-q", "-F", &disk.device])?,
            FileSystem::XfsLogApart => {
                let file = text(&disk._folder.path().join("log"));
                succeed("coreutils", "truncate", &["-s", LOG_SIZE, &file])?;
                let log = succeed("mount", "losetup", &["--find", "--show", &file])?.trim().to_owned();
                let place = format!("logdev={log},size={LOG_SIZE}");
                disk.log = Some(log);
                succeed("xfsprogs", "mkfs.xfs", &["-q", "-f", "-l", &place, &disk.device])?
            }
        };
        disk.mount()?;
        Ok(disk)
    }

    /// Ends the daemon and its file system at once, without writing anything more: what was not synced is lost.
    ///
    /// The daemon stands still first: XFS tells an fsync that is under way while it is shut down that all is well, and
    /// whoever gets to hear that has no power either.
    pub fn cut_power_of(&self, daemon: Daemon) {
        daemon.freeze();
        succeed("xfsprogs", "xfs_io", &["-x", "-c", "shutdown", &text(&self.mount)]).expect("the power is cut");
        daemon.kill();
    }

    /// Mounts again after a power cut; nobody may hold a file open. The file system replays its log.
    pub fn restore_power(&self) {
        self.unmount();
        self.mount().expect("the disk is mounted again");
    }

    /// Every write to the device fails from now on, or works again. Only on a `fallible` disk.
    pub fn fail_writes(&self, fail: bool) {
        let switch = &self.failing.as_ref().expect("a fallible disk").switch;
        if fail {
            std::fs::write(switch, "").expect("the switch");
        } else {
            std::fs::remove_file(switch).expect("the switch");
        }
    }

    /// Whether the kernel has given up writing to it, until it is mounted anew.
    pub fn is_read_only(&self) -> bool {
        std::fs::write(self.mount.join("probe"), "").is_err_and(|error| error.kind() == ErrorKind::ReadOnlyFilesystem)
    }

    pub fn mount(&self) -> Result<(), String> {
        let log = self.log.as_ref().map(|log| format!("logdev={log}"));
        let options = match self.kind {
            FileSystem::Ext4 => "errors=remount-ro",
            FileSystem::Xfs | FileSystem::XfsLogApart => log.as_deref().unwrap_or("rw"),
        };
        succeed("mount", "mount", &["-o", options, &self.device, &text(&self.mount)]).map(drop)
    }

    pub fn unmount(&self) {
        wait_for("the disk is unmounted", Duration::from_secs(20), || {
            super::run("mount", "umount", &[&text(&self.mount)]).status.success().then_some(())
        });
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A test that failed may leave a daemon behind that holds files: lazily then.
        let _ = Command::new("umount").arg("-l").arg(&self.mount).stderr(Stdio::null()).status();
        for device in [Some(&self.device), self.log.as_ref()].into_iter().flatten() {
            let _ = Command::new("losetup").args(["-d", device]).stderr(Stdio::null()).status();
        }
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.fuse).stderr(Stdio::null()).status();
        // It ends by itself when unmounted; a stuck one is ended by its pid.
        for _ in 0..50 {
            if self.server.try_wait().is_ok_and(|ended| ended.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Runs a program to its end and gives its output.
///
/// **Errors**: that it is missing or failed, with what it said.
fn succeed(package: &str, program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("{program} (Debian package {package}): {error}"))?;
    if !output.status.success() {
        return Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
