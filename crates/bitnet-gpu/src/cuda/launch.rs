//! How products are cut into blocks of threads: by what a device has.

use super::probe::CudaDeviceInfo;
use crate::kernels::{KernelId, TARGETS, VECTORS, target_of};
use crate::tiles;

/// The shape of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchParams {
    /// What is launched.
    pub kernel: KernelId,
    /// Threads of a block.
    pub block_size: usize,
    /// Blocks for rows of the matrix.
    pub grid_x: usize,
    /// Blocks for rows of activations.
    pub grid_y: usize,
    /// Bytes of shared memory of a block that a launch asks for.
    pub shared: usize,
}

/// Threads of a warp.
const WARP: usize = 32;
/// Warps of a block that multiplies a few rows: at least as many as there are results for, at most what it has room for.
const FEW_WARPS: [usize; 2] = [4, 16];
/// Warps of a multiprocessor that keep its share of the memory busy: each has 512 bytes and more on their way.
const BUSY_WARPS: usize = 32;
/// Threads of a block that multiplies many rows.
const MANY_THREADS: usize = 128;
/// Steps of columns whose activations such a block has on their way; and where its warps multiply together.
const STAGES: [usize; 2] = [3, 4];

impl CudaDeviceInfo {
    /// The launch of a product of `m` rows of activations and a ternary matrix of `n` rows.
    ///
    /// # Panics
    ///
    /// If there are no kernels for the device.
    #[must_use]
    pub fn calculate_optimal_launch_params(&self, m: usize, n: usize) -> LaunchParams {
        let target = target_of(self.compute_capability);
        let (_, target) = TARGETS[target.expect("a device that there are kernels for")];
        LaunchParams::of(self, KernelId::product(target, m, false), (m, n.div_ceil(tiles::ROWS)))
    }
}

impl LaunchParams {
    /// The same of a kernel, for so many tiles of the matrices. One that gates has two matrices of as many tiles.
    pub(crate) fn of(
        info: &CudaDeviceInfo,
        kernel: KernelId,
        (rows, tiles): (usize, usize),
    ) -> LaunchParams {
        let Some(tokens) = kernel.tokens() else {
            // A block for each tile: where these are few for the device, each has more warps, which share out its columns.
            let multiprocessors = usize::try_from(info.multiprocessor_count).unwrap_or(1);
            let [least, most] = FEW_WARPS;
            let threads = usize::try_from(info.max_threads_per_block).unwrap_or(0);
            let wanted = (BUSY_WARPS * multiprocessors).div_ceil(tiles.max(1)).next_power_of_two();
            let warps = wanted.clamp(least, most.min(threads / WARP).max(least));
            let grid_y = rows.div_ceil(VECTORS);
            return LaunchParams {
                kernel,
                block_size: WARP * warps,
                grid_x: tiles,
                grid_y,
                shared: 0,
            };
        };
        let together = matches!(kernel, KernelId::GemmWgmma | KernelId::GemmWgmmaGate);
        LaunchParams {
            kernel,
            block_size: MANY_THREADS,
            grid_x: tiles.div_ceil(MANY_THREADS / WARP * tiles_of_warp(kernel)),
            grid_y: rows.div_ceil(tokens),
            shared: STAGES[usize::from(together)] * tiles::COLS * tokens,
        }
    }
}

/// Tiles of the results that a warp of a kernel for many rows has.
fn tiles_of_warp(kernel: KernelId) -> usize {
    match kernel {
        KernelId::Gemm16 | KernelId::Gemm32 | KernelId::Gemm64 => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CudaComputeCapability;

    /// Name, compute capability, multiprocessors, bytes of shared memory that a block can have: as NVIDIA's tables have them.
    const DEVICES: [(&str, (u32, u32), i32, usize); 14] = [
        ("GeForce GTX 1060 6GB", (6, 1), 10, 48 << 10),
        ("GeForce GTX 1080 Ti", (6, 1), 28, 48 << 10),
        ("Tesla V100", (7, 0), 80, 96 << 10),
        ("Tesla T4", (7, 5), 40, 64 << 10),
        ("GeForce RTX 2080 Ti", (7, 5), 68, 64 << 10),
        ("A100", (8, 0), 108, 163 << 10),
        ("GeForce RTX 3090", (8, 6), 82, 99 << 10),
        ("Jetson AGX Orin", (8, 7), 16, 163 << 10),
        ("GeForce RTX 4090", (8, 9), 128, 99 << 10),
        ("L4", (8, 9), 58, 99 << 10),
        ("H100 SXM", (9, 0), 132, 227 << 10),
        ("H200", (9, 0), 132, 227 << 10),
        ("B200", (10, 0), 148, 227 << 10),
        ("GeForce RTX 5090", (12, 0), 170, 99 << 10),
    ];

    fn info(
        (name, (major, minor), multiprocessors, shared): (&str, (u32, u32), i32, usize),
    ) -> CudaDeviceInfo {
        let capability = CudaComputeCapability::new(major, minor);
        CudaDeviceInfo {
            device_id: 0,
            name: name.to_owned(),
            uuid: String::new(),
            compute_capability: capability,
            total_memory: 1 << 30,
            l2_cache: 0,
            memory_bandwidth: 0,
            multiprocessor_count: multiprocessors,
            max_threads_per_block: 1024,
            max_shared_memory_per_block: shared,
            cooperative_launch: true,
            supports_fp16: true,
            supports_bf16: major >= 8,
            peers: Vec::new(),
        }
    }

    #[test]
    fn launches_are_such_as_devices_take_and_leave_nothing_out() {
        let sizes = [1, 7, 16, 64, 2560, 3840, 6912, 13_824, 128_256];
        for device in DEVICES {
            let info = info(device);
            for m in [1, 2, 8, 9, 16, 17, 33, 63, 64, 100, 512, 4096] {
                for n in sizes {
                    let launch = info.calculate_optimal_launch_params(m, n);
                    let LaunchParams { kernel, block_size, grid_x, grid_y, shared } = launch;
                    let case = format!("{}, {m} x {n}: {launch:?}", info.name);
                    assert!(kernel.needs() <= info.compute_capability, "{case}");
                    assert!(block_size.is_multiple_of(WARP) && block_size <= 1024, "{case}");
                    assert!(block_size >= MANY_THREADS, "a thread for each result: {case}");
                    assert!(shared <= info.max_shared_memory_per_block, "{case}");
                    assert!(grid_y <= 65_535 && grid_x > 0 && grid_y > 0, "{case}");
                    let (rows, tokens) = match kernel.tokens() {
                        Some(tokens) if kernel == KernelId::GemmWgmma => (4 * tiles::ROWS, tokens),
                        Some(tokens) => (8 * tiles::ROWS, tokens),
                        None => (tiles::ROWS, VECTORS),
                    };
                    assert!(grid_x * rows >= n && (grid_x - 1) * rows < n, "{case}");
                    assert!(grid_y * tokens >= m && (grid_y - 1) * tokens < m, "{case}");
                }
            }
        }
    }

    /// Instructions for four warps are in one generation only.
    #[test]
    fn many_rows_go_to_the_kernel_of_the_generation() {
        for device in DEVICES {
            let info = info(device);
            let of = |m: usize| info.calculate_optimal_launch_params(m, 2560);
            let (few, many) = (of(63).kernel, of(64));
            let expected = match (info.compute_capability.major, info.compute_capability.minor) {
                (..=7, _) => [KernelId::GemvDp4a; 2],
                (9, 0) => [KernelId::Gemm64, KernelId::GemmWgmma],
                _ => [KernelId::Gemm64; 2],
            };
            assert_eq!([few, many.kernel], expected, "{}", info.name);
            if many.kernel == KernelId::GemmWgmma {
                assert_eq!((many.grid_x, many.grid_y, many.shared), (40, 1, 32 << 10));
            }
        }
    }

    /// A large device has more warps for the tiles of a small matrix, and no more than it needs for those of a large one.
    #[test]
    fn small_matrices_keep_large_devices_busy() {
        let threads = |device: &str, n: usize| {
            let device = DEVICES.into_iter().find(|(name, ..)| *name == device).unwrap();
            info(device).calculate_optimal_launch_params(1, n).block_size
        };
        assert_eq!(threads("H200", 2560), 512);
        assert_eq!(threads("H200", 13_824), 256);
        assert_eq!(threads("H200", 128_256), 128);
        assert_eq!(threads("GeForce GTX 1060 6GB", 2560), 128);
        assert_eq!(threads("Tesla T4", 2560), 256);
    }
}
