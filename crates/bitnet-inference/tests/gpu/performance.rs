//! What sessions tell of their work.

use bitnet_gpu::kernels::KernelId;
use bitnet_inference::receipt::{Around, Receipt};
use bitnet_inference::{Generation, Input, PerformanceStats, Request, Sampling, Session};
use fake_cuda::cases::{Case, Library};

use crate::common::{DEMO, load};
use crate::{on_cpu, on_gpu, prompt};

pub(crate) const CASES: &[Case] = &[
    ("passes_are_counted_as_they_are_recorded", Library::Fake, "", recorded),
    ("what_is_copied_is_counted", Library::Fake, "", copied),
    ("launches_are_those_of_the_receipt", Library::Fake, "", launched),
    ("processors_have_no_such_statistics", Library::Fake, "", none),
];

/// A pass of some tokens, the last with logits.
fn pass(session: &mut Session, tokens: &[u32]) -> PerformanceStats {
    let last = tokens.len() - 1;
    let input = |(i, &token)| Input { sequence: 0, token, logits: i == last };
    let inputs: Vec<_> = tokens.iter().enumerate().map(input).collect();
    session.run(&inputs).unwrap();
    session.performance_stats().unwrap()
}

fn recorded() {
    let engine = load(DEMO, &on_gpu());
    let mut session = engine.session(1).unwrap();
    let before = session.performance_stats().unwrap();
    assert_eq!((before.total_kernel_launches, before.cache_hit_ratio()), (0, None));
    assert!(before.total_execution_time_ms.abs() < f64::EPSILON);
    // By rows, rounded up: 16, 1, 1, 16 again and 4.
    let mut time = 0.0;
    for (tokens, hits, misses) in [(9, 0, 1), (1, 0, 2), (1, 1, 2), (12, 2, 2), (3, 2, 3)] {
        let stats = pass(&mut session, &prompt(tokens));
        assert_eq!((stats.cache_hits, stats.cache_misses), (hits, misses), "{tokens} tokens");
        assert!(stats.total_execution_time_ms > time);
        time = stats.total_execution_time_ms;
    }
    let ratio = session.performance_stats().unwrap().cache_hit_ratio();
    assert_eq!(ratio, Some(0.4));
    // Others have recorded nothing.
    let other = engine.session(1).unwrap().performance_stats().unwrap();
    assert_eq!((other.cache_misses, other.total_kernel_launches), (0, 0));
}

fn copied() {
    let engine = load(DEMO, &on_gpu());
    let mut session = engine.session(1).unwrap();
    // The first tells the device of the block that the tokens are in, too.
    let [first, before, after] = [1, 1, 2].map(|tokens| pass(&mut session, &prompt(tokens)));
    assert!(first.bytes_transferred_h2d > engine.size() / 2, "the weights");
    let up = |a: &PerformanceStats, b: &PerformanceStats| {
        let transfers = b.memory_transfers_host_to_device - a.memory_transfers_host_to_device;
        (transfers, b.bytes_transferred_h2d - a.bytes_transferred_h2d)
    };
    // Rows come over as a whole, as many as there are.
    let rows = up(&first, &before);
    assert_eq!((rows.0, up(&before, &after)), (1, rows));
    // The logits of one row.
    let down = after.bytes_transferred_d2h - before.bytes_transferred_d2h;
    assert_eq!(down, 4 * engine.vocabulary() as u64);
    assert_eq!(after.memory_transfers_device_to_host - before.memory_transfers_device_to_host, 1);
    assert_eq!((after.memory_transfers_peer_to_device, after.bytes_transferred_p2d), (0, 0));
    assert!(after.peak_memory_bytes >= after.current_memory_bytes);
    assert!(after.current_memory_bytes > engine.size() / 2);
    drop(session);
    let other = engine.session(1).unwrap().performance_stats().unwrap();
    assert_eq!(other.current_memory_bytes, after.current_memory_bytes, "memory is given back");
}

/// The device goes on by itself from the second token on, and begins a pass that nobody needs.
fn launched() {
    let engine = load(DEMO, &on_gpu());
    let request = Request { ignore_end: true, ..Request::new(prompt(9), Sampling::greedy(), 6) };
    let mut generation = Generation::new(&engine, request).unwrap();
    while generation.next(|| false).unwrap().is_some() {}
    let stats = generation.performance_stats().unwrap();
    let receipt = Receipt::new(&engine, &mut generation, Around::default()).unwrap();
    let on_gpu = receipt.kernels.iter().filter(|(name, _)| name.parse::<KernelId>().is_ok());
    let on_gpu: Vec<_> = on_gpu.map(|(name, &launches)| (name.as_str(), launches)).collect();
    assert_eq!(stats.kernel_launches.clone().into_iter().collect::<Vec<_>>(), on_gpu);
    let all: u64 = on_gpu.iter().map(|(_, launches)| launches).sum();
    assert_eq!((stats.total_kernel_launches, stats.kernel_launches["sample_draw"]), (all, 4));
    // The prompt, a token, and four that the device drew: their hidden states are of two places in turn.
    assert_eq!((stats.cache_misses, stats.cache_hits, stats.dropped_passes), (3, 3, 0));
}

fn none() {
    let mut session = load(DEMO, &on_cpu()).session(1).unwrap();
    assert_eq!(session.performance_stats(), None);
    session.run(&[Input { sequence: 0, token: 1, logits: true }]).unwrap();
    assert_eq!(session.performance_stats(), None);
}
