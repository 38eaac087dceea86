//! Memory, kernels and graphs of a device.

use bitnet_gpu::PrecisionMode;
use bitnet_gpu::cuda::{
    Cache, CacheShape, Error, Floats, Gpu, Input, Loader, Matrix, Parts, Plan, Quantized, Recorded,
    Row, SPAN, Scratch, Step, Vector,
};
use bitnet_gpu::kernels::{GpuPasses, RowTiles, bucket};
use bitnet_gpu::tiles;
use bitnet_kernels::Format;
use std::sync::Arc;

use fake_cuda::cases::{Case, Library};

const ROWS: usize = 48;
const COLS: usize = 256;
const EPS: f32 = 1e-5;

pub(crate) const CASES: &[Case] = &[
    ("operations_are_done_in_order", Library::Fake, "", one_pass),
    ("older_devices_give_the_same", Library::Fake, "cc=6.1", one_pass),
    ("graphs_do_the_same_again", Library::Fake, "", graphs),
    ("rows_that_are_too_long_for_shared_memory_are_refused", Library::Fake, "cc=6.1", || {
        let gpu = Gpu::open(0).unwrap();
        let plan = Plan::new();
        let (x, q) = (plan.floats(1, 13_000), plan.quantized(1, 13_000));
        let scratch = Scratch::new(&gpu, &plan).unwrap();
        let mut queue = bitnet_gpu::cuda::Queue::new(&gpu, &scratch);
        let error = queue.quantize((&x, 1), &q).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }));
        assert!(
            error.to_string().contains("quant_i8 needs 52000 bytes of shared memory"),
            "{error}"
        );
    }),
    ("there_is_room_for_all_parts_of_attention", Library::Fake, "", attention),
    ("what_does_not_fit_is_refused", Library::Fake, "memory=1000000", || {
        let gpu = Gpu::open(0).unwrap();
        let error = Loader::new(&gpu, 2_000_000).unwrap_err();
        let Error::OutOfMemory { needs: 2_000_000, free: 1_000_000, total: 1_000_000, .. } = error
        else {
            panic!()
        };
        assert!(error.to_string().contains("the weights need 2000000 bytes"), "{error}");
    }),
    ("memory_comes_back", Library::Fake, "memory=3000000", || {
        let gpu = Gpu::open(0).unwrap();
        let before = gpu.memory();
        assert_eq!(before.current_allocated, 0);
        for _ in 0..100 {
            drop(Loader::new(&gpu, 2_000_000).unwrap());
        }
        let memory = gpu.memory();
        assert_eq!((memory.current_allocated, memory.peak_memory), (0, 2_000_000));
        assert_eq!(memory.allocation_count - before.allocation_count, 100);
        assert_eq!(memory.deallocation_count, memory.allocation_count);
        assert_eq!(gpu.free_memory().unwrap(), (3_000_000, 3_000_000));
    }),
    ("a_device_that_computes_wrong_is_refused", Library::Fake, "wrong=yes", || {
        let error = Gpu::open(0).unwrap_err();
        assert!(matches!(error, Error::Wrong { .. }));
        assert!(error.to_string().contains("Fake GPU 0 computes wrong: number 0 is "), "{error}");
    }),
    // Opening the device takes twenty launches.
    ("a_kernel_that_fails_is_an_error", Library::Fake, "fail=cuLaunchKernel:22:700", || {
        let gpu = Gpu::open(0).unwrap();
        let model = Model::new(&gpu);
        let error = model.run(&gpu).unwrap_err();
        assert!(
            matches!(error, Error::Driver { call: "cuLaunchKernel", code: 700, .. }),
            "{error}"
        );
    }),
    ("a_recording_that_fails_ends", Library::Fake, "fail=cuLaunchKernel:22:700", || {
        let gpu = Gpu::open(0).unwrap();
        let model = Model::new(&gpu);
        let recorded =
            Recorded::new((&gpu, &model.scratch), GpuPasses::Graph, |queue| model.enqueue(queue));
        assert!(matches!(recorded.unwrap_err(), Error::Driver { code: 700, .. }));
        // The stream takes other things again.
        assert_eq!(model.run(&gpu).unwrap(), model.expected());
    }),
];

/// A norm and a matrix, with two rows to go through them.
struct Model {
    weights: Vec<i8>,
    x: Vec<f32>,
    matrix: Matrix,
    norm: Vector,
    scratch: Scratch,
    floats: [Floats; 2],
    quantized: Quantized,
}

impl Model {
    fn new(gpu: &Arc<Gpu>) -> Model {
        let weights: Vec<i8> = (0..ROWS * COLS).map(|i| (i * i % 7 % 3) as i8 - 1).collect();
        let x: Vec<f32> = (0..2 * COLS).map(|i| ((i * 37 % 101) as f32 - 50.0) / 7.0).collect();
        let mut packed = vec![0; tiles::bytes(ROWS, COLS)];
        tiles::pack(&weights, COLS, &mut packed);
        let bytes = Loader::matrix_bytes(ROWS, COLS) + Loader::other_bytes(4 * COLS);
        let mut loader = Loader::new(gpu, bytes).unwrap();
        let matrix = loader.matrix(&packed, (ROWS, COLS), 0.5).unwrap();
        let norm = loader.vector(&[1.0; COLS]).unwrap();
        let plan = Plan::new();
        let floats = [plan.floats(2, COLS), plan.floats(2, ROWS)];
        let quantized = plan.quantized(2, COLS);
        let scratch = Scratch::new(gpu, &plan).unwrap();
        scratch.write(gpu, &floats[0], &x).unwrap();
        Model { weights, x, matrix, norm, scratch, floats, quantized }
    }

    fn enqueue(&self, queue: &mut bitnet_gpu::cuda::Queue<'_>) -> Result<(), Error> {
        queue.norm_quantize((&self.floats[0], 2), (&self.norm, EPS), &self.quantized)?;
        queue.linear((Input::Bytes(&self.quantized), 2), &[(&self.matrix, &self.floats[1])], false)
    }

    fn run(&self, gpu: &Gpu) -> Result<Vec<f32>, Error> {
        let mut queue = bitnet_gpu::cuda::Queue::new(gpu, &self.scratch);
        self.enqueue(&mut queue)?;
        let launches: Vec<_> =
            queue.launches().iter().map(|(kernel, n)| (kernel.name(), n)).collect();
        assert_eq!(launches[0], ("rmsnorm_quant_i8", 1));
        assert!(launches[1].0.starts_with("i2s_gpu_gemv_") && launches[1].1 == 1);
        self.scratch.read(gpu, &self.floats[1], 2)
    }

    /// What the processor's kernels make of it.
    fn expected(&self) -> Vec<f32> {
        use bitnet_kernels::op::{NormArgs, NormFn, QuantizeArgs, QuantizeFn, RowScale};
        let kernels = bitnet_kernels::KernelManager::new();
        let (norm, quantize) =
            (kernels.select::<NormFn>(None).unwrap(), kernels.select::<QuantizeFn>(None).unwrap());
        let row = |x: &[f32]| {
            let (mut y, mut q, mut scale) = (vec![0.0; COLS], vec![0; COLS], RowScale::default());
            (norm.run)(NormArgs { x, weight: &[1.0; COLS], eps: EPS, y: &mut y });
            (quantize.run)(QuantizeArgs { x: &y, q: &mut q, scale: &mut scale });
            let sums = self.weights.chunks(COLS).map(move |row| {
                row.iter().zip(&q).map(|(w, q)| i32::from(*w) * i32::from(*q)).sum::<i32>()
            });
            sums.map(|sum| sum as f32 / scale.scale * 0.5).collect::<Vec<_>>()
        };
        self.x.chunks(COLS).flat_map(row).collect()
    }
}

fn one_pass() {
    let gpu = Gpu::open(0).unwrap();
    let before = gpu.transfers();
    let model = Model::new(&gpu);
    assert_eq!(model.run(&gpu).unwrap(), model.expected());
    // The matrix, the norm and the rows; the result.
    let after = gpu.transfers();
    assert_eq!((after.to_device - before.to_device, after.to_host - before.to_host), (3, 1));
    let bytes = (tiles::bytes(ROWS, COLS) + 4 * COLS + 4 * 2 * COLS) as u64;
    assert_eq!(after.bytes_to_device - before.bytes_to_device, bytes);
    assert_eq!(after.bytes_to_host - before.bytes_to_host, 4 * 2 * ROWS as u64);
    assert!(matches!(
        Loader::new(&gpu, 1 << 20).unwrap().table(&[0; 128], (2, 32), Format::Q8_0),
        Err(Error::Unsupported { .. })
    ));
}

fn graphs() {
    let gpu = Gpu::open(0).unwrap();
    let model = Model::new(&gpu);
    let mut recorded =
        Recorded::new((&gpu, &model.scratch), GpuPasses::Graph, |queue| model.enqueue(queue))
            .unwrap();
    // Nothing was done.
    assert_eq!(model.scratch.read(&gpu, &model.floats[1], 2).unwrap(), vec![0.0; 2 * ROWS]);
    let mut launches = bitnet_gpu::cuda::Launches::default();
    for _ in 0..3 {
        recorded.replay(&gpu, &mut launches).unwrap();
        assert_eq!(model.scratch.read(&gpu, &model.floats[1], 2).unwrap(), model.expected());
    }
    let launches: Vec<_> = launches.iter().map(|(kernel, n)| (kernel.name(), n)).collect();
    assert_eq!(launches, [("rmsnorm_quant_i8", 3), ("i2s_gpu_gemv_mma_u8s8", 3)]);
}

/// The last of many rows attends to a context whose spans are no power of two.
fn attention() {
    const LAST: usize = 127;
    let (context, size) = (2 * SPAN + 100, 8);
    let gpu = Gpu::open(0).unwrap();
    let shape = CacheShape {
        blocks: context.div_ceil(16),
        block_bytes: 2 * 16 * 4 * size,
        sequences: 1,
        context,
        kv_heads: 1,
        size,
        format: Format::F32,
    };
    let cache = Cache::new(&gpu, shape).unwrap();
    let blocks: Vec<u32> = (0..shape.blocks as u32).collect();
    cache.set_table(&gpu, 0, 0, &blocks).unwrap();
    let parts = Parts::new(&gpu, LAST + 1, 1, &shape).unwrap();
    let mut step = Step::new(&gpu, LAST + 1, RowTiles::new(PrecisionMode::Fp32, 0, 0)).unwrap();
    // The others are not there.
    let row = |i| Row {
        token: 0,
        sequence: 0,
        position: if i == LAST { context - 1 } else { usize::MAX },
    };
    step.set(&(0..=LAST).map(row).collect::<Vec<_>>(), &[]);
    step.send(&gpu).unwrap();
    let plan = Plan::new();
    let [q, out] = [0; 2].map(|_| plan.floats(LAST + 1, size));
    let scratch = Scratch::new(&gpu, &plan).unwrap();
    scratch.write(&gpu, &out, &vec![1.0; (LAST + 1) * size]).unwrap();
    let mut queue = bitnet_gpu::cuda::Queue::new(&gpu, &scratch);
    let spans = bucket(context.div_ceil(SPAN));
    queue.attend((step.rows(), LAST + 1), (&q, None, &out), (&cache, 0), (&parts, spans)).unwrap();
    // All values are zeros.
    let found = scratch.read(&gpu, &out, LAST + 1).unwrap();
    assert_eq!(found[LAST * size..], vec![0.0; size]);
}
