//! Files that settings name, files that are not opened through symbolic links, and the limit of open files of the process,
//! which connections, files and the sockets of dependencies share.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;

/// Opens a file that this process appends payments to, unless the path ends in a symbolic link: whoever can write to the
/// directory could lead it to another file of this user. Links in `/dev`, such as `/dev/stdout`, are the system's own.
///
/// # Errors
/// Where it cannot be opened, or is a symbolic link.
pub fn open_no_link(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    if is_device(path) {
        return options.open(path);
    }
    let flags = OFlags::NOFOLLOW.bits();
    options.custom_flags(flags.cast_signed()).open(path).map_err(|error| {
        let is_link = std::fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
        if is_link {
            io::Error::other("is a symbolic link, which is not followed; remove it, or name the file that it leads to")
        } else {
            error
        }
    })
}

/// What stands at the path: as [`open_no_link`] opens it.
///
/// # Errors
/// Where nothing does, or it cannot be looked at.
pub fn metadata_no_link(path: &Path) -> io::Result<Metadata> {
    if is_device(path) {
        std::fs::metadata(path)
    } else {
        std::fs::symlink_metadata(path)
    }
}

fn is_device(path: &Path) -> bool {
    path.starts_with("/dev")
}

/// What is assumed where the system does not say it.
const USUAL: usize = 1_024;

/// The content of a file of at most `max` bytes. A pipe, on which reading would wait for ever, a folder or a device is
/// refused.
///
/// # Errors
/// It cannot be read, is no regular file, or is larger.
pub fn read_regular(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let flags = OFlags::NONBLOCK | OFlags::CLOEXEC;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    let file = OpenOptions::new()
        .read(true)
        // Opening a pipe does not wait for its writer.
        .custom_flags(flags)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::other(format!("it is larger than {max} bytes")));
    }
    Ok(bytes)
}

/// The number of files that the process may open at the same time (`ulimit -n`).
pub(crate) fn limit() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    parse(&limits).unwrap_or(USUAL)
}

/// The soft limit in the text of `/proc/self/limits` (proc(5)).
fn parse(limits: &str) -> Option<usize> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(usize::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_read_and_nothing_waits_for_a_pipe() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let pipe = path("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        for refused in [&*pipe, directory.path(), Path::new("/dev/zero")] {
            assert!(read_regular(refused, 10).is_err(), "{}", refused.display());
        }
        std::fs::write(path("file"), "1234567890").unwrap();
        // Kubernetes mounts secrets as links.
        std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
        assert_eq!(read_regular(&path("link"), 10).unwrap(), b"1234567890");
        assert!(read_regular(&path("file"), 9).is_err());
    }

    #[test]
    fn a_link_is_not_followed_whether_or_not_its_target_exists() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let mut options = OpenOptions::new();
        let options = options.create(true).append(true);
        let refused = open_no_link(options, &link).unwrap_err();
        assert!(refused.to_string().contains("symbolic link"), "{refused}");
        assert!(!target.exists());
        open_no_link(options, &target).unwrap();
        assert!(open_no_link(options, &link).is_err());
        assert!(metadata_no_link(&link).unwrap().is_symlink());
    }

    #[test]
    fn the_soft_limit_is_read() {
        let text = "Max processes    1  2  processes\nMax open files            1024                 524288               files\n";
        assert_eq!(parse(text), Some(1_024));
        assert_eq!(
            parse("Max open files  unlimited  unlimited"),
            Some(usize::MAX)
        );
        assert_eq!(parse(""), None);
        assert!(limit() > 0);
    }
}
