//! What computes.

use std::fmt;
use std::str::FromStr;

/// Something that computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// An NVIDIA GPU, by its number.
    Cuda(usize),
    /// An Apple GPU.
    Metal,
    /// A library of llama.cpp or bitnet.cpp, on whatever it computes.
    Llama,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(number) => write!(f, "cuda:{number}"),
            Device::Metal => f.write_str("metal"),
            Device::Llama => f.write_str("llama"),
        }
    }
}

/// A name that is no device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownDevice(pub String);

impl fmt::Display for UnknownDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no device; known are cpu, cuda, cuda:N, metal and llama", self.0)
    }
}

impl std::error::Error for UnknownDevice {}

impl FromStr for Device {
    type Err = UnknownDevice;

    fn from_str(name: &str) -> Result<Device, UnknownDevice> {
        let unknown = || UnknownDevice(name.to_owned());
        match name.to_ascii_lowercase().as_str() {
            "cpu" => Ok(Device::Cpu),
            "cuda" | "gpu" => Ok(Device::Cuda(0)),
            "metal" => Ok(Device::Metal),
            "llama" => Ok(Device::Llama),
            other => {
                let number = other.strip_prefix("cuda:").ok_or_else(unknown)?;
                number.parse().map(Device::Cuda).map_err(|_| unknown())
            }
        }
    }
}

/// Devices that each have all of a model, and take requests of their own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Devices {
    /// One, or several NVIDIA GPUs, each once: `cuda:0,1`.
    These(Vec<Device>),
    /// All NVIDIA GPUs that there are: `cuda:all`.
    AllCuda,
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Devices::AllCuda => f.write_str("cuda:all"),
            Devices::These(devices) => {
                for (index, device) in devices.iter().enumerate() {
                    match device {
                        Device::Cuda(number) if index > 0 => write!(f, ",{number}")?,
                        device => device.fmt(f)?,
                    }
                }
                Ok(())
            }
        }
    }
}

/// Names that are no devices.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnknownDevices {
    /// There is no such device.
    Unknown(UnknownDevice),
    /// A device is there twice.
    Twice(Device),
}

impl fmt::Display for UnknownDevices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnknownDevices::Unknown(unknown) => {
                write!(f, "{unknown}; several GPUs are cuda:0,1 or cuda:all")
            }
            UnknownDevices::Twice(device) => {
                write!(f, "{device} is there twice: name each device once")
            }
        }
    }
}

impl std::error::Error for UnknownDevices {}

impl FromStr for Devices {
    type Err = UnknownDevices;

    fn from_str(name: &str) -> Result<Devices, UnknownDevices> {
        if name.eq_ignore_ascii_case("cuda:all") {
            return Ok(Devices::AllCuda);
        }
        let one = |name: &str| name.parse().map_err(UnknownDevices::Unknown);
        let Some((first, others)) = name.split_once(',') else {
            return Ok(Devices::These(vec![one(name)?]));
        };
        let first = one(first)?;
        if !(matches!(first, Device::Cuda(_)) && name.contains(':')) {
            return Err(UnknownDevices::Unknown(UnknownDevice(name.to_owned())));
        }
        let mut devices = vec![first];
        for number in others.split(',') {
            let device = one(&format!("cuda:{number}"))?;
            if devices.contains(&device) {
                return Err(UnknownDevices::Twice(device));
            }
            devices.push(device);
        }
        Ok(Devices::These(devices))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_parse_back() {
        let several = Devices::These(vec![Device::Cuda(1), Device::Cuda(0)]);
        let one = |device| Devices::These(vec![device]);
        for devices in [Devices::AllCuda, several, one(Device::Cpu), one(Device::Cuda(3))] {
            assert_eq!(devices.to_string().parse(), Ok(devices));
        }
        assert_eq!("cuda:0,1,0".parse::<Devices>(), Err(UnknownDevices::Twice(Device::Cuda(0))));
        for name in
            ["", "cuda:0,", "cuda,1", "cpu,1", "cuda:0,all", "cuda:0,cuda:1", ",1", "cuda:0, 1"]
        {
            let error = name.parse::<Devices>().unwrap_err().to_string();
            assert!(error.contains("several GPUs are cuda:0,1"), "{error}");
        }
    }

    #[test]
    fn names_parse_back() {
        for device in [Device::Cpu, Device::Cuda(0), Device::Cuda(12), Device::Metal, Device::Llama]
        {
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        assert_eq!("GPU".parse(), Ok(Device::Cuda(0)));
        for name in ["", "cuda:", "cuda:-1", "cuda:x", "tpu"] {
            let error = name.parse::<Device>().unwrap_err().to_string();
            assert!(error.contains("known are cpu"), "{error}");
        }
    }
}
