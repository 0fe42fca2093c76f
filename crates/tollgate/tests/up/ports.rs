//! The embedded log cannot be reached from outside the process.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::Up;

/// State `LISTEN` in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// Inodes of the sockets of a process.
fn sockets(pid: u32) -> BTreeSet<String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links
        .filter_map(|link| {
            let name = link.to_string_lossy().into_owned();
            Some(name.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect()
}

/// TCP ports on which a process listens.
fn listening(pid: u32) -> BTreeSet<u16> {
    let own = sockets(pid);
    let tables = ["tcp", "tcp6"].map(|name| Path::new("/proc/net").join(name));
    let tables = tables
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok());
    let mut ports = BTreeSet::new();
    for table in tables {
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if fields[3] == LISTEN && own.contains(fields[9]) {
                let (_, port) = fields[1].split_once(':').unwrap();
                ports.insert(u16::from_str_radix(port, 16).unwrap());
            }
        }
    }
    ports
}

#[test]
fn up_listens_on_the_addresses_that_it_prints_and_on_no_other_so_nobody_reaches_its_log() {
    let directory = tempfile::tempdir().unwrap();
    let up = Up::start(directory.path());
    let printed: BTreeSet<u16> = up
        .addresses()
        .values()
        .map(|url| url.rsplit_once(':').unwrap().1.parse().unwrap())
        .collect();
    assert_eq!(printed.len(), 6, "two APIs and four admin ports");
    assert_eq!(listening(up.pid()), printed);
    up.stop();
}
