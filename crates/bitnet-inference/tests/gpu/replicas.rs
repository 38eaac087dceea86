//! A model on several devices: requests give what they give on one, wherever they go, and whatever fails.

use std::collections::HashMap;
use std::thread;

use bitnet_inference::receipt::{Around, Receipt, verify};
use bitnet_inference::{
    Capacity, DeviceStatus, Engine, Error, Event, Generation, Options, Replicas, Request,
    RequestId, Sampling, Scheduler, Usage,
};
use bitnet_kernels::Device;
use fake_cuda::cases::{Case, Library};

use crate::common::{DEMO, load};
use crate::receipts::{real, wrong};
use crate::{on_cpu, on_gpu, prompt};

pub(crate) const CASES: &[Case] = &[
    ("replicas_share_the_work", Library::Fake, "devices=2", share),
    ("keys_and_values_go_from_device_to_device", Library::Fake, "devices=2", || migrate(8)),
    ("keys_and_values_go_through_the_host", Library::Fake, "devices=2 peers=no", || migrate(0)),
    (
        "what_a_device_has_begun_begins_again_where_it_fails",
        Library::Fake,
        "devices=2 fail=cuGraphLaunch@1:3:700",
        fails,
    ),
    (
        "requests_fail_where_all_devices_do",
        Library::Fake,
        "devices=2 fail=cuGraphLaunch@0:3:700 fail=cuGraphLaunch@1:2:700",
        all_fail,
    ),
    ("devices_are_gpus_each_once", Library::Fake, "devices=2", refused),
    ("receipts_name_the_device_that_computed", Library::Fake, "devices=2", named),
];

fn several() -> Engine {
    load(DEMO, &Options { beside: vec![Device::Cuda(1)], ..on_gpu() })
}

fn asked(prompt: &[u32], limit: usize) -> Request {
    Request {
        ignore_end: true,
        ..Request::new(prompt.to_vec(), Sampling { seed: 5, ..Sampling::default() }, limit)
    }
}

/// What came of requests: tokens, the use of those that ended, and errors.
#[derive(Debug, Default)]
struct Seen {
    tokens: HashMap<RequestId, Vec<u32>>,
    ended: HashMap<RequestId, Usage>,
    failed: HashMap<RequestId, Error>,
    embeddings: HashMap<RequestId, Vec<Vec<f32>>>,
}

impl Seen {
    fn see(&mut self, replicas: &mut Replicas<'_>) {
        replicas.wait();
        for event in replicas.step().unwrap() {
            match event {
                Event::Token(token) => self.tokens.entry(token.id).or_default().push(token.token),
                Event::End(end) => _ = self.ended.insert(end.id, end.usage),
                Event::Embeddings { id, embeddings } => _ = self.embeddings.insert(id, embeddings),
                Event::Failed { id, error } => _ = self.failed.insert(id, error),
                _ => {}
            }
        }
    }

    fn see_all(&mut self, replicas: &mut Replicas<'_>) {
        while !replicas.is_idle() {
            self.see(replicas);
        }
    }
}

/// Does something with the replicas of an engine, and gives how it is with the devices then.
fn with(
    engine: &Engine,
    sequences: usize,
    work: impl FnOnce(&mut Replicas<'_>) -> Seen,
) -> (Seen, Vec<DeviceStatus>) {
    thread::scope(|scope| {
        let capacity = Capacity { sequences, ..Capacity::default() };
        let mut replicas = Replicas::new(scope, engine, capacity, || {}).unwrap();
        let seen = work(&mut replicas);
        (seen, replicas.devices())
    })
}

/// The tokens of requests, in their order.
fn tokens(engine: &Engine, requests: &[Request]) -> (Vec<Vec<u32>>, Vec<DeviceStatus>) {
    let mut ids = Vec::new();
    let (mut seen, devices) = with(engine, 2, |replicas| {
        ids.extend(requests.iter().map(|request| replicas.submit(request.clone()).unwrap()));
        let mut seen = Seen::default();
        seen.see_all(replicas);
        seen
    });
    assert!(seen.failed.is_empty(), "{:?}", seen.failed);
    (ids.iter().map(|id| seen.tokens.remove(id).unwrap_or_default()).collect(), devices)
}

fn some() -> Vec<Request> {
    (0..5).map(|i| asked(&prompt(40)[i..i + 7], 3 + i)).collect()
}

fn share() {
    let (engine, cpu) = (several(), load(DEMO, &on_cpu()));
    assert_eq!(engine.devices(), [Device::Cuda(0), Device::Cuda(1)]);
    let (expected, _) = tokens(&cpu, &some());
    let (found, devices) = tokens(&engine, &some());
    assert_eq!(found, expected);
    assert!(devices.iter().all(|device| device.tokens > 2 && device.requests == 0), "{devices:?}");
    let all: u64 = devices.iter().map(|device| device.tokens).sum();
    assert_eq!(all, (3..8).sum::<u64>());

    // Among those that are cancelled before they begin, or while they run, and embeddings.
    let (seen, devices) = with(&engine, 1, |replicas| {
        let mut seen = Seen::default();
        let ids: Vec<_> =
            (0..4).map(|i| replicas.submit(asked(&prompt(5 + i), 6)).unwrap()).collect();
        let texts = vec![prompt(9), prompt(3)];
        let wanted = replicas.embed(texts.clone()).unwrap();
        replicas.cancel(ids[3]);
        while seen.tokens.is_empty() {
            seen.see(replicas);
        }
        assert!(replicas.load().0 >= 1, "{:?}", replicas.load());
        let first = *seen.tokens.keys().next().unwrap();
        replicas.cancel(first);
        seen.see_all(replicas);
        assert!(seen.tokens[&first].len() < 6 && !seen.tokens.contains_key(&ids[3]));
        assert_eq!((seen.ended.len(), seen.failed.len()), (4, 0));
        let mut session = cpu.session(1).unwrap();
        for (text, found) in texts.iter().zip(&seen.embeddings[&wanted]) {
            session.truncate(0, 0);
            assert_eq!(*found, session.embed(0, text).unwrap());
        }
        seen
    });
    assert_eq!(seen.embeddings.len(), 1);
    assert!(devices.iter().all(|device| device.requests == 0 && device.failed.is_none()));
}

/// A prompt whose beginning is with a device that is full goes elsewhere, and its keys and values with it.
fn migrate(from_peers: u64) {
    let (engine, cpu) = (several(), load(DEMO, &on_cpu()));
    let long = prompt(133);
    let requests = [asked(&long, 1), asked(&long, 12), asked(&long, 3)];
    let (expected, _) = tokens(&cpu, &requests);
    let mut ids = Vec::new();
    let (seen, devices) = with(&engine, 1, |replicas| {
        let mut seen = Seen::default();
        ids.push(replicas.submit(requests[0].clone()).unwrap());
        seen.see_all(replicas);
        // The first goes where the prompt is, which is full then.
        ids.extend(requests[1..].iter().map(|request| replicas.submit(request.clone()).unwrap()));
        seen.see_all(replicas);
        seen
    });
    let found: Vec<_> = ids.iter().map(|id| seen.tokens[id].clone()).collect();
    assert_eq!(found, expected);
    let cached: Vec<_> = ids.iter().map(|id| seen.ended[id].cached).collect();
    assert_eq!(cached, [0, 128, 128]);
    let told: Vec<_> = devices.iter().map(|d| (d.tokens, d.copied, d.from_peers)).collect();
    assert_eq!(told, [(13, 0, 0), (3, 128, from_peers)]);
}

fn fails() {
    let (expected, _) = tokens(&load(DEMO, &on_cpu()), &some());
    let (found, devices) = tokens(&several(), &some());
    assert_eq!(found, expected);
    assert_eq!(devices[0].failed, None);
    let why = devices[1].failed.as_deref().unwrap();
    assert!(why.starts_with("cuda:1: ") && why.contains("cuGraphLaunch"), "{why}");
}

fn all_fail() {
    let engine = several();
    let (_, devices) = with(&engine, 2, |replicas| {
        let mut seen = Seen::default();
        for request in some() {
            replicas.submit(request).unwrap();
        }
        seen.see_all(replicas);
        assert!(!seen.failed.is_empty() && seen.failed.len() + seen.ended.len() == 5);
        for error in seen.failed.values() {
            assert!(matches!(error, Error::Pass { .. }), "{error}");
            assert!(error.to_string().contains("cuGraphLaunch"), "{error}");
        }
        // The driver says it once: whoever asks then is answered, and the device counts as sound.
        let id = replicas.submit(asked(&prompt(4), 2)).unwrap();
        seen.see_all(replicas);
        assert_eq!(seen.tokens[&id].len(), 2);
        seen
    });
    assert!(devices.iter().any(|device| device.failed.is_none()), "{devices:?}");
}

fn refused() {
    let refused = |device, beside: &[Device]| {
        let gguf = bitnet_gguf::Gguf::from_static("model.gguf", DEMO).unwrap();
        let options = Options { device, beside: beside.to_vec(), ..on_cpu() };
        Engine::load(gguf, &options).unwrap_err().to_string()
    };
    let [first, second, third] = [0, 1, 2].map(Device::Cuda);
    assert!(refused(first, &[second, third]).contains("there is no cuda:2"));
    assert!(refused(first, &[second, first]).contains("cuda:0 is there twice"));
    assert!(refused(Device::Cpu, &[first]).contains("name it alone"));
    assert!(refused(first, &[Device::Cpu]).contains("name it alone"));
}

fn named() {
    let engine = several();
    for (replica, name) in [(1, "cuda:1"), (0, "cuda:0")] {
        let scheduler = Scheduler::on(&engine, replica, Capacity::default()).unwrap();
        let mut generation = Generation::with(scheduler, asked(&prompt(9), 2)).unwrap();
        while generation.next(|| false).unwrap().is_some() {}
        let receipt = Receipt::new(&engine, &mut generation, Around::default()).unwrap();
        assert_eq!(receipt.machine.device, name);
        assert_eq!(receipt.machine.gpu.as_ref().unwrap().name, format!("Fake GPU {replica}"));
        assert_eq!(wrong(&verify(&receipt, None).unwrap()), ["kernels of the device"]);
        let verdict = verify(&real(&receipt), None).unwrap();
        assert!(verdict.holds(), "{verdict}");
    }
}
