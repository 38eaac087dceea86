//! Measurements change how fast a model runs, and nothing else; and only on the machine they are of.
#![expect(clippy::unwrap_used, reason = "a failure is the result of a test")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use bitnet_gguf::Gguf;
use bitnet_inference::tuning::{Best, Found, Shape, Tuning, measure};
use bitnet_inference::{Config, Error, Input, Options};
use bitnet_kernels::{Isa, KernelManager};
use common::{DEMO, load, logits};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

type Change = fn(&mut Value);

fn shapes() -> Vec<Shape> {
    Shape::of(&Config::from_gguf(&Gguf::from_static("model.gguf", DEMO).unwrap()).unwrap())
}

fn prompt() -> Vec<u32> {
    (0..150).map(|i: u32| (i * i * 7 + i * 131) % 2040).collect()
}

fn measured() -> Tuning {
    let mut said = Vec::new();
    let manager = KernelManager::new();
    let tuning = measure(&manager, &shapes(), |what| said.push(what.to_owned())).unwrap();
    assert_eq!(said[..2], ["threads", "tiles"]);
    assert_eq!(said.len(), 2 + shapes().len());
    tuning
}

/// A file with measurements that were changed, and their hash with them.
fn changed(change: impl FnOnce(&mut Value)) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep").join("tuning.json");
    measured().save(&path).unwrap();
    let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    value["sha256"] = json!("");
    let hash = Sha256::digest(value.to_string());
    value["sha256"] = json!(hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    fs::write(&path, value.to_string()).unwrap();
    (folder, path)
}

fn tuning(path: &Path) -> Tuning {
    match Tuning::load(path).unwrap() {
        Found::Tuning(tuning) => tuning,
        other => panic!("{other:?}"),
    }
}

#[test]
fn shapes_of_a_model_are_those_of_its_matrices() {
    let found: Vec<_> = shapes().iter().map(|s| (s.rows, s.cols, s.count)).collect();
    assert_eq!(found, [(256, 256, 8), (128, 256, 8), (512, 256, 8), (256, 512, 4)]);
}

#[test]
fn tuning_never_changes_results() {
    let plain = load(DEMO, &Options { isa: Some(Isa::Scalar), ..Options::default() });
    let want = logits(&plain, &prompt());
    let path = changed(|_| ());
    let check = |tuning: Tuning| {
        let engine = load(DEMO, &Options { tuning: Some(tuning.clone()), ..Options::default() });
        assert_eq!(engine.tuning(), Some(tuning.sha256()));
        assert_eq!(engine.threads(), tuning.models[0].threads);
        assert!(logits(&engine, &prompt()) == want);
        let mut session = engine.session(1).unwrap();
        session.run(&[Input { sequence: 0, token: 1, logits: false }]).unwrap();
        session.calls().iter().map(|(kernel, _)| kernel.to_string()).collect::<Vec<_>>()
    };
    check(tuning(&path.1));
    // The slowest kernels, more threads than cores, the smallest and the greatest tiles.
    for (tile, layout) in [(1 << 12, "tl2_r32"), (1 << 26, "i2s_r32")] {
        let (_folder, path) = changed(|value| {
            value["models"][0]["threads"] = json!(5);
            value["models"][0]["tile"] = json!(tile);
            for shape in value["models"][0]["shapes"].as_array_mut().unwrap() {
                let id = format!("{}_{layout}_q8_scalar", shape["operation"].as_str().unwrap());
                shape["kernels"] = json!([{ "id": id, "nanoseconds": 1 }]);
            }
        });
        let called = check(tuning(&path));
        assert!(called.contains(&format!("gemv_{layout}_q8_scalar")), "{called:?}");
    }
}

#[test]
fn measurements_are_those_of_the_shapes_and_kernels_of_a_model() {
    let tuning = measured();
    let Best { threads, shapes: found, .. } = &tuning.models[0];
    assert!(*threads > 0);
    assert_eq!(found.len(), 2 * shapes().len());
    for shape in found {
        assert!(!shape.kernels.is_empty());
        let mine = |id: &str| id.starts_with(&shape.operation);
        assert!(shape.kernels.iter().all(|kernel| mine(&kernel.id) && kernel.nanoseconds > 0));
    }
    assert!(tuning.best(&shapes()).is_some());
    let other = [Shape { rows: 256, cols: 256, count: 1 }];
    assert!(tuning.best(&other).is_none());
    assert!(tuning.best(&[&shapes()[..], &[Shape { rows: 64, ..other[0] }]].concat()).is_none());
    // New measurements of a model take the place of old ones; those of others stay.
    let manager = KernelManager::new();
    let both = measure(&manager, &other, |_| ()).unwrap().and(tuning.clone(), &other);
    assert_eq!(both.models.len(), 2);
    assert_eq!(tuning.and(both, &shapes()).models.len(), 2);
    let none = measure(&manager, &[], |_| ()).unwrap();
    assert!(none.models[0].shapes.is_empty());
}

#[test]
fn measurements_of_another_machine_or_version_are_not_used_and_that_is_said() {
    let other = |change: fn(&mut Value)| {
        let (_folder, path) = changed(change);
        match Tuning::load(&path).unwrap() {
            Found::Other(notice) => notice.to_string(),
            found => panic!("{found:?}"),
        }
    };
    let said = other(|value| value["machine"]["cpu"] = json!("Z80"));
    assert!(said.contains("it is of \"Z80\"") && said.contains("bitnet tune"), "{said}");
    let said = other(|value| value["machine"]["allowed"] = json!(4096));
    assert!(said.contains("4096 threads"), "{said}");
    let said = other(|value| {
        value["version"] = json!("9.9.9");
        value["more"] = json!("that only 9.9.9 knows");
    });
    assert!(said.contains("of version \"9.9.9\""), "{said}");
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(Tuning::load(&folder.path().join("none.json")).unwrap(), Found::Nothing);
}

#[test]
fn damaged_measurements_are_refused() {
    let refused = |path: &Path| match Tuning::load(path) {
        Err(error @ Error::Tuning { .. }) => error.to_string(),
        found => panic!("{found:?}"),
    };
    let changes: [(Change, &str); 6] = [
        (|value| value["schema"] = json!(2), "format 2 is unknown"),
        (|value| value["models"][0]["threads"] = json!(0), "make no sense"),
        (|value| value["models"][0]["tile"] = json!(1), "make no sense"),
        (|value| value["more"] = json!(1), "unknown field"),
        (
            |value| value["models"][0]["shapes"][0]["kernels"][0]["id"] = json!("gemv_x"),
            "no kernel `gemv_x`",
        ),
        (
            |value| value["models"][0]["shapes"][0]["operation"] = json!("gemm"),
            "is no kernel for gemm",
        ),
    ];
    for (change, words) in changes {
        let (_folder, path) = changed(change);
        let said = refused(&path);
        assert!(said.contains(words) && said.contains("bitnet tune"), "{said}");
        assert!(said.contains("tuning.json"), "{said}");
    }
    let (_folder, path) = changed(|_| ());
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"threads\":", "\"threads\":1")).unwrap();
    assert!(refused(&path).contains("changed after it was written"));
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    assert!(refused(&path).contains("EOF"));
    fs::write(&path, [0xFF, 0xFE]).unwrap();
    refused(&path);
    assert!(tuning_cannot_be_saved(&path));
}

fn tuning_cannot_be_saved(file: &Path) -> bool {
    matches!(measured().save(&file.join("below a file")), Err(Error::Tuning { .. }))
}
