//! What runs in the pods of a node, as the machine sees it. Kills only there.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::Node;
use crate::namespace::control_groups;

impl Node {
    /// Whether a program runs in a pod of this node, by its name and its first
    /// argument.
    ///
    /// # Errors
    /// When the processes of the machine cannot be listed.
    pub fn runs_in_a_pod(&self, program: &str, argument: &str) -> Result<bool> {
        Ok(!self.in_pods(program, argument)?.is_empty())
    }

    /// Kills a program in all pods of this node at once, as `kill -9` does, and
    /// gives how many processes that were.
    ///
    /// # Errors
    /// When the processes cannot be listed, or one cannot be killed.
    pub fn kill_in_pods(&self, program: &str, argument: &str) -> Result<usize> {
        let mut killed = 0;
        for process in self.in_pods(program, argument)? {
            match kill_process(process, Signal::KILL) {
                Ok(()) => killed += 1,
                // It has just ended.
                Err(Errno::SRCH) => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot kill {program}"));
                }
            }
        }
        Ok(killed)
    }

    fn in_pods(&self, program: &str, argument: &str) -> Result<Vec<Pid>> {
        let group = format!("/{}/", control_groups::of_node(self.name())?);
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").context("cannot list processes")? {
            let place = entry?.path();
            let name = place.file_name().and_then(|name| name.to_str());
            let Some(id) = name.and_then(|name| name.parse().ok()) else {
                continue;
            };
            // One that ends meanwhile says nothing.
            let groups = fs::read_to_string(place.join("cgroup")).unwrap_or_default();
            let line = fs::read(place.join("cmdline")).unwrap_or_default();
            if groups.contains(&group) && is_command(&line, program, argument) {
                found.extend(Pid::from_raw(id));
            }
        }
        Ok(found)
    }
}

/// Whether a command line is that of a program with this first argument.
fn is_command(line: &[u8], program: &str, argument: &str) -> bool {
    let mut words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let is_program = words.next().is_some_and(|word| {
        let name = Path::new(&*word).file_name();
        name.is_some_and(|name| name == program)
    });
    is_program && words.next().as_deref() == Some(argument)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_known_by_its_name_and_its_first_argument() {
        let is_mover = |line: &[u8]| is_command(line, "lifebuoy", "mover");
        assert!(is_mover(b"/usr/local/bin/lifebuoy\0mover\0"));
        assert!(is_mover(b"lifebuoy\0mover\0--verbose\0"));
        assert!(!is_mover(b"/usr/local/bin/lifebuoy\0operator\0mover\0"));
        assert!(!is_mover(b"/usr/bin/lifebuoyd\0mover\0"));
        assert!(!is_mover(b"lifebuoy\0"));
        // A process that has ended.
        assert!(!is_mover(b""));
    }
}
