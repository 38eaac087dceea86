//! A device that is an interpreter.

use bitnet_kernels::op::{GateArgs, Gelu, GeluFn, Relu2, Relu2Fn, Silu, SiluFn};
use bitnet_kernels::{Isa, KernelManager};
use ptx_emu::{Error, Launch, Memory, Module, Report};

use crate::mutants;

/// A module, and memory.
pub(crate) struct Gpu {
    module: Module,
    target: &'static str,
    pub(crate) memory: Memory,
}

/// Arguments of a launch, each at a multiple of its size.
#[derive(Default)]
pub(crate) struct Args(Vec<u8>);

/// Numbers that are written to memory and read from it.
pub(crate) trait Number: Copy {
    fn bytes(self) -> Vec<u8>;
    fn of(bytes: &[u8]) -> Self;
}

macro_rules! number {
    ($($ty:ty)*) => {
        $(impl Number for $ty {
            fn bytes(self) -> Vec<u8> {
                self.to_le_bytes().to_vec()
            }

            fn of(bytes: &[u8]) -> $ty {
                <$ty>::from_le_bytes(bytes.try_into().unwrap())
            }
        })*
    };
}

number!(i8 u8 u16 i32 u32 f32 u64);

impl Args {
    pub(crate) fn with<T: Number>(mut self, x: T) -> Args {
        self.0.resize(self.0.len().next_multiple_of(size_of::<T>()), 0);
        self.0.extend(x.bytes());
        self
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// With another number at a place.
    pub(crate) fn at<T: Number>(mut self, place: usize, x: T) -> Args {
        let bytes = x.bytes();
        self.0[place..][..bytes.len()].copy_from_slice(&bytes);
        self
    }

    /// Those of another structure behind these.
    pub(crate) fn and(mut self, next: Args) -> Args {
        self.0.extend(next.0);
        self
    }

    /// The end of a structure with pointers in it.
    pub(crate) fn end(mut self) -> Args {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        self
    }
}

impl Gpu {
    /// With the kernels for devices from `target` on.
    pub(crate) fn new(target: &str) -> Gpu {
        let (target, text) = mutants::text(target);
        Gpu { module: Module::parse(&text).unwrap(), target, memory: Memory::new() }
    }

    pub(crate) fn upload<T: Number>(&mut self, x: &[T]) -> u64 {
        let bytes: Vec<u8> = x.iter().flat_map(|x| x.bytes()).collect();
        self.memory.copy_of(&bytes)
    }

    /// Room for some numbers, that nobody has written.
    pub(crate) fn room<T: Number>(&mut self, n: usize) -> u64 {
        self.memory.allocate(n * size_of::<T>())
    }

    pub(crate) fn download<T: Number>(&self, address: u64, n: usize) -> Vec<T> {
        let bytes = self.memory.read(address, n * size_of::<T>()).unwrap();
        bytes.chunks(size_of::<T>()).map(T::of).collect()
    }

    pub(crate) fn try_launch(
        &mut self,
        kernel: &str,
        shape: ([u32; 3], u32, usize),
        args: &Args,
    ) -> Result<Report, Error> {
        self.try_any(kernel, shape, args, false)
    }

    fn try_any(
        &mut self,
        kernel: &str,
        (grid, block, dynamic_shared): ([u32; 3], u32, usize),
        args: &Args,
        cooperative: bool,
    ) -> Result<Report, Error> {
        let launch = Launch {
            grid,
            block: [block, 1, 1],
            dynamic_shared,
            args: &args.0,
            cooperative,
            limit: 100_000_000,
        };
        let report = self.module.launch(kernel, &launch, &mut self.memory)?;
        mutants::note(self.target, &report.lines);
        Ok(report)
    }

    pub(crate) fn launch(
        &mut self,
        kernel: &str,
        shape: ([u32; 3], u32, usize),
        args: &Args,
    ) -> Report {
        self.try_launch(kernel, shape, args).unwrap_or_else(|error| panic!("{kernel}: {error}"))
    }
}

impl Gpu {
    /// A kernel whose blocks wait for one another.
    pub(crate) fn launch_together(
        &mut self,
        kernel: &str,
        shape: ([u32; 3], u32, usize),
        args: &Args,
    ) {
        let launched = self.try_any(kernel, shape, args, true);
        launched.unwrap_or_else(|error| panic!("{kernel}: {error}"));
    }
}

/// Kernels of the processor, without vectors.
pub(crate) fn reference() -> KernelManager {
    KernelManager::new().limit(Isa::Scalar).unwrap()
}

/// `gate = activation(gate) * up`.
type Gate = fn(&mut [f32], &[f32]);

/// Those of the processor, in the order in which kernels count them.
pub(crate) const GATES: [Gate; 3] = [
    |gate, up| (reference().select::<Relu2Fn>(None).unwrap().run)(GateArgs { gate, up, by: Relu2 }),
    |gate, up| (reference().select::<SiluFn>(None).unwrap().run)(GateArgs { gate, up, by: Silu }),
    |gate, up| (reference().select::<GeluFn>(None).unwrap().run)(GateArgs { gate, up, by: Gelu }),
];

/// The bits of numbers, those of all that are none the same.
pub(crate) fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}

/// Numbers that look random, the same every time.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % n
    }

    pub(crate) fn float(&mut self) -> f32 {
        self.below(2_000_001) as f32 / 500_000.0 - 2.0
    }

    pub(crate) fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }

    pub(crate) fn weights(&mut self, n: usize) -> Vec<i8> {
        (0..n).map(|_| self.below(3) as i8 - 1).collect()
    }
}
