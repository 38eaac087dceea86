//! Blocks of keys and values that go from one device to another.

use bitnet_gpu::cuda::{Cache, CacheShape, Error, Gpu};
use bitnet_kernels::Format;
use fake_cuda::cases::{Case, Library};

pub(crate) const CASES: &[Case] = &[
    ("devices_copy_from_each_other", Library::Fake, "devices=2", || copied(true)),
    ("devices_copy_through_the_host", Library::Fake, "devices=2 peers=no", || copied(false)),
    (
        "a_driver_that_has_no_more_peers_copies_through_the_host",
        Library::Fake,
        "devices=2 fail=cuCtxEnablePeerAccess:1:711",
        || copied(false),
    ),
    (
        "a_peer_that_cannot_be_had_is_an_error",
        Library::Fake,
        "devices=2 fail=cuCtxEnablePeerAccess:1:999",
        || {
            let [one, other] = [0, 1].map(|number| Gpu::open(number).unwrap());
            let error = one.reaches(&other).unwrap_err();
            assert!(matches!(error, Error::Driver { code: 999, .. }), "{error}");
        },
    ),
];

const BYTES: usize = 512;

fn copied(by_itself: bool) {
    let gpus = [0, 1].map(|number| Gpu::open(number).unwrap());
    let shape = CacheShape {
        blocks: 4,
        block_bytes: BYTES,
        sequences: 1,
        context: 64,
        kv_heads: 1,
        size: 8,
        format: Format::F16,
    };
    let [there, here] = gpus.each_ref().map(|gpu| Cache::new(gpu, shape).unwrap());
    let bytes = |block: u32| (0..BYTES).map(|i| (i * 7) as u8 ^ block as u8).collect::<Vec<_>>();
    for block in 0..4 {
        there.write_block(&gpus[0], block, &bytes(block)).unwrap();
        here.write_block(&gpus[1], block, &[0xee; BYTES]).unwrap();
    }
    let before = gpus.each_ref().map(|gpu| gpu.transfers());
    for _ in 0..2 {
        here.copy_blocks(&gpus[1], (&gpus[0], &there), &[(3, 0), (1, 2)]).unwrap();
    }
    let after = gpus.each_ref().map(|gpu| gpu.transfers());
    let found = (0..4).map(|block| here.read_block(&gpus[1], block).unwrap());
    let other = vec![0xee; BYTES];
    assert_eq!(found.collect::<Vec<_>>(), [bytes(3), other.clone(), bytes(1), other]);
    let all = 4 * BYTES as u64;
    let peers = after[1].bytes_from_peers - before[1].bytes_from_peers;
    let host = [
        after[0].bytes_to_host - before[0].bytes_to_host,
        after[1].bytes_to_device - before[1].bytes_to_device,
    ];
    assert_eq!((peers, host), if by_itself { (all, [0, 0]) } else { (0, [all, all]) });
    assert_eq!(after[1].from_peers - before[1].from_peers, if by_itself { 4 } else { 0 });
}
