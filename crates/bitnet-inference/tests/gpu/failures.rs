//! What cannot be done on a GPU is an error, and never done elsewhere.

use bitnet_gpu::cuda::{self, Gpu};
use bitnet_inference::{Engine, Error, Input, KvType, Options};
use bitnet_kernels::Device;
use fake_cuda::cases::{Case, Library};

use crate::common::{DEMO, load};
use crate::on_gpu;
use crate::tiny::TINY;

pub(crate) const CASES: &[Case] = &[
    ("there_is_no_driver", Library::Nothing, "", || {
        let error = refused(&on_gpu());
        assert!(error.to_string().contains("no NVIDIA driver"), "{error}");
    }),
    ("there_is_no_device", Library::Fake, "devices=0", || {
        let error = refused(&on_gpu());
        assert!(error.to_string().contains("no device"), "{error}");
    }),
    ("there_are_fewer_devices", Library::Fake, "devices=2", || {
        let error = refused(&Options { device: Device::Cuda(2), ..on_gpu() });
        assert!(error.to_string().contains("there is no cuda:2"), "{error}");
        load(DEMO, &Options { device: Device::Cuda(1), ..on_gpu() });
    }),
    ("a_device_that_computes_wrong_is_refused", Library::Fake, "wrong=yes", || {
        let error = refused(&on_gpu());
        assert!(matches!(error, Error::Gpu(cuda::Error::Wrong { .. })), "{error}");
    }),
    ("weights_do_not_fit", Library::Fake, "memory=400000", || {
        let error = refused(&on_gpu());
        assert!(error.to_string().contains("the weights need"), "{error}");
    }),
    ("keys_and_values_do_not_fit", Library::Fake, "memory=24000000", || {
        let engine = load(DEMO, &Options { kv: KvType::F32, ..on_gpu() });
        let error = engine.session(64).unwrap_err();
        assert!(matches!(error, Error::Gpu(cuda::Error::OutOfMemory { .. })), "{error}");
        assert!(error.to_string().contains("keys and values"), "{error}");
        // What there is room for can still be had.
        engine.session(1).unwrap();
    }),
    ("what_the_kernels_cannot_do_is_refused", Library::Fake, "", || {
        for options in [
            Options { dequantize: true, ..on_gpu() },
            Options { layout: Some(bitnet_inference::Layout::I2SR32), ..on_gpu() },
        ] {
            assert!(matches!(refused(&options), Error::Device(_)));
        }
    }),
    ("a_pass_that_fails_changes_nothing", Library::Fake, "fail=cuGraphLaunch:2:700", || {
        let engine = load(DEMO, &on_gpu());
        let mut session = engine.session(1).unwrap();
        let input = [Input { sequence: 0, token: 5, logits: true }];
        session.run(&input).unwrap();
        let error = session.run(&input).unwrap_err();
        assert!(error.to_string().contains("cuGraphLaunch"), "{error}");
        assert_eq!((session.len(0), session.last_logits().unwrap()), (1, None));
    }),
    ("memory_comes_back", Library::Fake, "", || {
        let gpu = Gpu::open(0).unwrap();
        let before = gpu.free_memory().unwrap();
        for _ in 0..100 {
            let engine = load(TINY, &on_gpu());
            let mut session = engine.session(1).unwrap();
            session.run(&[Input { sequence: 0, token: 5, logits: true }]).unwrap();
        }
        assert_eq!(gpu.free_memory().unwrap(), before);
    }),
];

fn refused(options: &Options) -> Error {
    let gguf = bitnet_gguf::Gguf::from_static("model.gguf", DEMO).unwrap();
    Engine::load(gguf, options).unwrap_err()
}
