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

#[cfg(test)]
mod tests {
    use super::*;

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
