//! How cores hang together, as sysfs tells it: NUMA nodes and the siblings that share a physical core.

use std::path::Path;

/// Where the kernel shows the machine.
pub const SYSFS: &str = "/sys/devices/system";

/// One logical core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Core {
    /// The kernel's number.
    pub id: usize,
    /// The NUMA node of its memory.
    pub numa_node: usize,
    /// The lowest number among the cores that share its physical core: equal for SMT siblings.
    pub physical: usize,
}

/// What `root` (see [`SYSFS`]) says about each of `cores`. What a kernel or container hides reads as the plain case:
/// node 0, and a physical core of its own.
#[must_use]
pub fn read(root: &Path, cores: &[usize]) -> Vec<Core> {
    let nodes = nodes(root);
    let describe = |id: usize| {
        let siblings = list(&root.join(format!("cpu/cpu{id}/topology/thread_siblings_list")));
        let node = nodes.iter().find(|(_, members)| members.contains(&id));
        Core {
            id,
            numa_node: node.map_or(0, |(node, _)| *node),
            physical: siblings.iter().copied().min().unwrap_or(id),
        }
    };
    cores.iter().copied().map(describe).collect()
}

fn nodes(root: &Path) -> Vec<(usize, Vec<usize>)> {
    let online = list(&root.join("node/online"));
    online.into_iter().map(|node| (node, list(&root.join(format!("node/node{node}/cpulist"))))).collect()
}

/// Reads a file in the kernel's list format, as `0-3,8`; empty when it is not there or something else.
fn list(path: &Path) -> Vec<usize> {
    let Ok(text) = std::fs::read_to_string(path) else {
        return Vec::new();
    };
    parse_list(&text).unwrap_or_default()
}

/// Reads the kernel's list format: `0-3,8`. `None` if the text is something else; an empty text is the empty list.
#[must_use]
pub fn parse_list(text: &str) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for part in text.trim().split(',').map(str::trim).filter(|_| !text.trim().is_empty()) {
        let (first, last): (usize, usize) = match part.split_once('-') {
            Some((first, last)) => (first.trim().parse().ok()?, last.trim().parse().ok()?),
            None => (part.parse().ok()?, part.parse().ok()?),
        };
        // Bounded before it is used: `0-4294967295` must not become a list of 4 Gi entries.
        if first > last || last >= libc::CPU_SETSIZE as usize {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_and_siblings_are_read_and_what_is_hidden_is_plain() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("node/online", "0-1\n");
        put("node/node0/cpulist", "0-1,4-5\n");
        put("node/node1/cpulist", "2-3,6-7\n");
        put("cpu/cpu2/topology/thread_siblings_list", "2,6\n");
        put("cpu/cpu6/topology/thread_siblings_list", "2,6\n");
        assert_eq!(
            read(root.path(), &[1, 2, 6]),
            [
                Core { id: 1, numa_node: 0, physical: 1 },
                Core { id: 2, numa_node: 1, physical: 2 },
                Core { id: 6, numa_node: 1, physical: 2 },
            ]
        );
        assert_eq!(read(Path::new("/nowhere"), &[3]), [Core { id: 3, numa_node: 0, physical: 3 }]);
    }

    #[test]
    fn this_machine_is_described_core_by_core() {
        let cores = crate::sys::affinity::allowed_cores();
        let topology = read(Path::new(SYSFS), &cores);
        assert!(topology.iter().map(|core| core.id).eq(cores));
        assert!(topology.iter().all(|core| core.physical <= core.id));
    }

    #[test]
    fn lists_are_the_kernels_and_bounded() {
        assert_eq!(parse_list("0-2,7\n"), Some(vec![0, 1, 2, 7]));
        assert_eq!(parse_list("\n"), Some(vec![]));
        for bad in ["a", "3-1", "0-4294967295", "1,,2", "-1"] {
            assert_eq!(parse_list(bad), None, "{bad}");
        }
    }
}
