//! The limit of open files of the process, which connections, files and the sockets of dependencies share.

/// What is assumed where the system does not say it.
const USUAL: usize = 1_024;

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
