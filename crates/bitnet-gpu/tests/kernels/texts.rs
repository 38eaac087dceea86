//! The texts. What one has as another has it is run once.

use std::collections::BTreeMap;

use bitnet_gpu::CudaComputeCapability;
use bitnet_gpu::kernels::{KernelId, TARGETS};

/// By target.
pub(crate) const TEXTS: [(&str, &str); TARGETS.len()] = [
    ("sm_61", include_str!("../../src/cuda/ptx/bitnet.sm_61.ptx")),
    ("sm_80", include_str!("../../src/cuda/ptx/bitnet.sm_80.ptx")),
    ("sm_90a", include_str!("../../src/cuda/ptx/bitnet.sm_90a.ptx")),
];

/// Two texts that differ by what the second has besides.
const SAME: [&str; 2] = ["sm_80", "sm_90a"];

/// Whether a kernel is in the text for a target as it is in one before.
pub(crate) fn is_as_before(target: &str, id: KernelId) -> bool {
    let [before, here] = SAME.map(needs);
    needs(target) == here && id.needs() <= before
}

fn needs(target: &str) -> CudaComputeCapability {
    TARGETS.iter().find(|(name, _)| *name == target).unwrap().1
}

/// The kernels of a text, by name. Labels begin with the place of a kernel in it, which is left out.
fn kernels(target: &str) -> BTreeMap<&'static str, String> {
    let (_, text) = TEXTS.into_iter().find(|(name, _)| *name == target).unwrap();
    let parts = text.split(".visible .entry ").skip(1).enumerate();
    parts
        .map(|(place, part)| {
            let (name, _) = part.split_once('(').unwrap();
            // Behind the last line of it are comments on the next one.
            let (code, _) = part.rsplit_once("\n}").unwrap();
            (name, code.replace(&format!("$L__BB{place}_"), "$L__BB_"))
        })
        .collect()
}

#[test]
fn texts_have_all_kernels_of_their_targets() {
    for (target, from) in TARGETS {
        let expected = KernelId::ALL.iter().filter(|id| id.needs() <= from);
        let mut expected: Vec<_> = expected.map(|id| id.name()).collect();
        expected.sort_unstable();
        assert_eq!(kernels(target).into_keys().collect::<Vec<_>>(), expected, "{target}");
    }
}

#[test]
fn kernels_that_are_run_once_are_the_same() {
    let [before, here] = SAME.map(kernels);
    for id in KernelId::ALL.iter().filter(|id| is_as_before(SAME[1], **id)) {
        assert!(before[id.name()] == here[id.name()], "{} is another one", id.name());
    }
}
