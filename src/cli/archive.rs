//! A plain tar file (POSIX ustar, sizes beyond 8 GiB in GNU's base-256): what `backup` writes and any `tar` can list.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

const BLOCK: usize = 512;
const NAME: std::ops::Range<usize> = 0..100;
const MODE: std::ops::Range<usize> = 100..108;
const SIZE: std::ops::Range<usize> = 124..136;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const KIND: usize = 156;
const MAGIC: std::ops::Range<usize> = 257..265;
const OCTAL_SIZE_MAX: u64 = 0o77_777_777_777;

/// Writes entries one after another.
pub struct Writer {
    file: BufWriter<File>,
}

impl Writer {
    /// A new file; one that exists is never overwritten.
    pub fn create(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self { file: BufWriter::new(file) })
    }

    /// Appends `size` octets of `content` under `name` (at most 100 octets).
    pub fn append(&mut self, name: &str, size: u64, content: &mut impl Read) -> io::Result<()> {
        if name.len() > NAME.len() {
            return Err(io::Error::other(format!("{name}: the name is too long for an archive")));
        }
        self.file.write_all(&header(name, size))?;
        let copied = io::copy(&mut content.take(size), &mut self.file)?;
        if copied != size {
            return Err(io::Error::other(format!("{name} changed its size while it was read")));
        }
        let padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        self.file.write_all(&vec![0; usize::try_from(padding).unwrap_or(0)])
    }

    /// Ends the archive and makes it durable.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.write_all(&[0; 2 * BLOCK])?;
        self.file.flush()?;
        self.file.get_ref().sync_all()
    }
}

/// Reads entries one after another.
pub struct Reader {
    file: BufReader<File>,
}

impl Reader {
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: BufReader::new(File::open(path)?) })
    }

    /// The next entry's name and size; `None` at the end. Its content must then be taken with `content`.
    pub fn next(&mut self) -> io::Result<Option<(String, u64)>> {
        let mut block = [0u8; BLOCK];
        self.file.read_exact(&mut block)?;
        if block.iter().all(|octet| *octet == 0) {
            return Ok(None);
        }
        let fault = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("not an archive of ours: {what}"));
        if octal(&block[CHECKSUM]) != Some(checksum(&block)) {
            return Err(fault("a header's checksum is wrong"));
        }
        let name = block[NAME].split(|octet| *octet == 0).next().unwrap_or_default();
        let name = String::from_utf8(name.to_vec()).map_err(|_| fault("a name is no UTF-8"))?;
        let size = if block[SIZE.start] & 0x80 == 0 {
            octal(&block[SIZE]).ok_or_else(|| fault("a size is no number"))?
        } else {
            block[SIZE.end - 8..SIZE.end].iter().fold(0u64, |size, octet| size << 8 | u64::from(*octet))
        };
        Ok(Some((name, size)))
    }

    /// Copies the content of the entry just named.
    pub fn content(&mut self, size: u64, out: &mut impl Write) -> io::Result<()> {
        let copied = io::copy(&mut (&mut self.file).take(size), out)?;
        if copied != size {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends in the middle"));
        }
        let padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        io::copy(&mut (&mut self.file).take(padding), &mut io::sink()).map(drop)
    }
}

fn header(name: &str, size: u64) -> [u8; BLOCK] {
    let mut block = [0u8; BLOCK];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[MODE].copy_from_slice(b"0000600\0");
    block[KIND] = b'0';
    block[MAGIC].copy_from_slice(b"ustar\x0000");
    if size <= OCTAL_SIZE_MAX {
        block[SIZE].copy_from_slice(format!("{size:011o}\0").as_bytes());
    } else {
        block[SIZE.start] = 0x80;
        block[SIZE.end - 8..SIZE.end].copy_from_slice(&size.to_be_bytes());
    }
    let sum = format!("{:06o}\0 ", checksum(&block));
    block[CHECKSUM].copy_from_slice(sum.as_bytes());
    block
}

/// Sum of the header's octets with the checksum field read as spaces.
fn checksum(block: &[u8; BLOCK]) -> u64 {
    let spaces = CHECKSUM.len() as u64 * u64::from(b' ');
    let outside = |at: &usize| !CHECKSUM.contains(at);
    (0..BLOCK).filter(outside).map(|at| u64::from(block[at])).sum::<u64>() + spaces
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    u64::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_and_tar_lists_them() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().join("backup.tar");
        let big = vec![7u8; 1025];
        let mut writer = Writer::create(&path).expect("a new file");
        writer.append("empty", 0, &mut io::empty()).expect("written");
        writer.append("big", big.len() as u64, &mut big.as_slice()).expect("written");
        writer.finish().expect("durable");
        let mut reader = Reader::open(&path).expect("the file");
        assert_eq!(reader.next().expect("an entry"), Some(("empty".to_owned(), 0)));
        assert_eq!(reader.next().expect("an entry"), Some(("big".to_owned(), 1025)));
        let mut back = Vec::new();
        reader.content(1025, &mut back).expect("its content");
        assert_eq!(back, big);
        assert_eq!(reader.next().expect("the end"), None);
        assert!(Writer::create(&path).is_err(), "an archive is never overwritten");
        let listed = std::process::Command::new("tar").arg("tf").arg(&path).output().expect("tar runs");
        assert_eq!(String::from_utf8_lossy(&listed.stdout), "empty\nbig\n");
    }

    #[test]
    fn sizes_beyond_eight_gib_are_kept() {
        let block = header("large", 1 << 40);
        assert_eq!(octal(&block[CHECKSUM]), Some(checksum(&block)));
        assert_eq!(block[SIZE.end - 8..SIZE.end], (1u64 << 40).to_be_bytes());
    }
}
