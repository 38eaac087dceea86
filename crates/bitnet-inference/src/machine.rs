//! The machine that a model runs on.

use std::num::NonZeroUsize;
use std::thread;

use bitnet_kernels::Cpu;
use serde::{Deserialize, Serialize};

/// What tells one machine from another, as far as speed goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// The model of the processor, as its maker calls it.
    pub cpu: String,
    /// The architecture that this program is compiled for.
    pub architecture: String,
    /// The names of the instruction sets that the processor has.
    pub isas: Vec<String>,
    /// Physical cores.
    pub cores: usize,
    /// Threads that the process may run at a time: logical cores, less what affinity and quotas take
    /// away.
    pub allowed: usize,
}

impl Machine {
    /// The machine this runs on.
    #[must_use]
    pub fn detect() -> Machine {
        let brand = sysinfo::System::new().ok().and_then(|mut system| {
            system.refresh_cpu_list(sysinfo::CpuRefreshKind::nothing());
            system.cpus().first().map(|cpu| cpu.brand().trim().to_owned())
        });
        Machine {
            cpu: brand.filter(|brand| !brand.is_empty()).unwrap_or_else(|| "unknown".to_owned()),
            architecture: std::env::consts::ARCH.to_owned(),
            isas: Cpu::detect().isas().iter().map(ToString::to_string).collect(),
            cores: num_cpus::get_physical(),
            allowed: thread::available_parallelism().map_or(1, NonZeroUsize::get),
        }
    }

    /// Threads to compute with: two on one core only take from each other.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.allowed.min(self.cores).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_a_name_and_cores() {
        let machine = Machine::detect();
        println!("{machine:?}");
        assert!(!machine.cpu.is_empty() && machine.isas[0] == "scalar");
        assert!(machine.cores > 0 && machine.threads() > 0);
        assert!(machine.threads() <= machine.allowed);
        assert_eq!(machine, Machine::detect());
    }
}
