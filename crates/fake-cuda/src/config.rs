//! What the driver pretends to be, as the environment says.

use std::env;

/// Words that are separated by spaces:
///
/// * `devices=2`: so many (1),
/// * `cc=8.6`: of this compute capability (9.0); with `cc=9.0,8.6` the second and all behind it of another, no newer one,
/// * `memory=1000000`: with so many bytes each (1 GiB),
/// * `driver=12040`: the version of CUDA that it knows (12.4),
/// * `peers=no`: devices cannot reach each other's memory,
/// * `wrong=yes`: a bit of each result changes on its way to the host,
/// * `fail=cuLaunchKernel:3:700`: the third call of a function gives an error,
/// * `fail=cuLaunchKernel@1:3:700`: the third of those for a device.
const VARIABLE: &str = "BITNET_FAKE_CUDA";

#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) devices: i32,
    /// Of each device; of those behind the last as of that.
    pub(crate) capabilities: Vec<(i32, i32)>,
    pub(crate) memory: usize,
    pub(crate) driver: i32,
    pub(crate) peers: bool,
    pub(crate) wrong: bool,
    pub(crate) failures: Vec<Failure>,
}

/// A call that fails.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) function: String,
    /// The device whose calls are counted; those of all if there is none.
    pub(crate) device: Option<usize>,
    /// Which call.
    pub(crate) call: u64,
    pub(crate) error: u32,
}

impl Config {
    /// The compute capability of a device.
    pub(crate) fn capability(&self, device: i32) -> (i32, i32) {
        let all = &self.capabilities;
        all[usize::try_from(device).unwrap_or(0).min(all.len() - 1)]
    }

    /// What the environment says; nothing where that cannot be understood.
    pub(crate) fn read() -> Option<Config> {
        let mut config = Config {
            devices: 1,
            capabilities: vec![(9, 0)],
            memory: 1 << 30,
            driver: 12_040,
            peers: true,
            wrong: false,
            failures: Vec::new(),
        };
        for word in env::var(VARIABLE).unwrap_or_default().split_whitespace() {
            let (name, value) = word.split_once('=')?;
            match name {
                "devices" => config.devices = value.parse().ok()?,
                "cc" => {
                    let capability = |value: &str| {
                        let (major, minor) = value.split_once('.')?;
                        Some((major.parse().ok()?, minor.parse().ok()?))
                    };
                    config.capabilities =
                        value.split(',').map(capability).collect::<Option<_>>()?;
                }
                "memory" => config.memory = value.parse().ok()?,
                "driver" => config.driver = value.parse().ok()?,
                "wrong" => config.wrong = value == "yes",
                "peers" => config.peers = value != "no",
                "fail" => {
                    let mut parts = value.split(':');
                    let function = parts.next()?;
                    let (function, device) = match function.split_once('@') {
                        Some((function, device)) => (function, Some(device.parse().ok()?)),
                        None => (function, None),
                    };
                    config.failures.push(Failure {
                        function: function.to_owned(),
                        device,
                        call: parts.next()?.parse().ok()?,
                        error: parts.next()?.parse().ok()?,
                    });
                }
                _ => return None,
            }
        }
        Some(config)
    }
}
