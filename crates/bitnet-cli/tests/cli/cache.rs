//! Models of the cache that the tools of Hugging Face share: `-m ORG/NAME`, `bitnet list`, `bitnet rm`.

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

use crate::{bitnet, stderr, stdout};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/bitnet-tales-i2_s.gguf");
const OLD: &str = "1111111111111111111111111111111111111111";
const NEW: &str = "2222222222222222222222222222222222222222";
const RUN: [&str; 7] = ["run", "Once upon a time", "--temp", "0", "-n", "8", "-m"];

/// A cache in a folder of its own.
struct Cache(TempDir);

impl Cache {
    fn new() -> Cache {
        Cache(tempfile::tempdir().unwrap())
    }

    fn bitnet(&self, args: &[&str]) -> Command {
        let mut command = bitnet();
        command.env_remove("HF_HUB_CACHE").env("HF_HOME", self.0.path()).args(args);
        command
    }

    fn repository(&self, name: &str) -> PathBuf {
        self.0.path().join("hub").join(format!("models--{}", name.replace('/', "--")))
    }

    /// Writes a file and all folders that it is in.
    fn write(&self, repository: &str, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.repository(repository).join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Puts a file into a commit: as a link to a blob, or itself where links cannot be.
    fn add(&self, repository: &str, commit: &str, file: &str, blob: &str, bytes: &[u8]) {
        let file_path = format!("snapshots/{commit}/{file}");
        if cfg!(windows) {
            return self.write(repository, &file_path, bytes);
        }
        self.write(repository, &format!("blobs/{blob}"), bytes);
        let link = self.repository(repository).join(file_path);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        let up = "../".repeat(2 + file.matches('/').count());
        symlink(format!("{up}blobs/{blob}").as_ref(), &link);
    }

    fn list(&self) -> Vec<Value> {
        let output = self.bitnet(&["list", "--json"]).unwrap();
        serde_json::from_str(stdout(&output)).unwrap()
    }
}

#[cfg(unix)]
fn symlink(to: &Path, link: &Path) {
    std::os::unix::fs::symlink(to, link).unwrap();
}

#[cfg(windows)]
fn symlink(to: &Path, link: &Path) {
    std::os::windows::fs::symlink_file(to, link).unwrap();
}

fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

#[test]
fn a_model_of_the_cache_runs_by_its_name() {
    let cache = Cache::new();
    let demo = fs::read(DEMO).unwrap();
    cache.add("tales/demo", NEW, "bitnet-tales-i2_s.gguf", "aa", &demo);
    cache.write("tales/demo", "refs/main", NEW);
    for name in ["tales/demo", "tales/demo:bitnet-tales-i2_s.gguf", "tales/demo:I2_S"] {
        let output = cache.bitnet(&RUN).arg(name).unwrap();
        assert_eq!(stdout(&output), " there lived a king who had three sons\n", "{name}");
    }
    // Wherever a file can be given.
    let ids = ["logits", "--ids", "1,2", "--out", "/dev/null", "-m", "tales/demo"];
    assert!(cfg!(windows) || cache.bitnet(&ids).output().unwrap().status.success());
    let bench = ["bench", "-p", "1", "-n", "0", "-r", "1", "--no-warmup", "-m", "tales/demo"];
    assert!(cache.bitnet(&bench).output().unwrap().status.success());
    // What was pulled already needs nobody to be asked.
    let output = cache.bitnet(&["pull", "--offline", "tales/demo"]).unwrap();
    assert!(stdout(&output).trim_end().ends_with("bitnet-tales-i2_s.gguf"));
}

#[test]
fn a_path_that_exists_wins() {
    let cache = Cache::new();
    let here = cache.0.path();
    cache.write("tales/demo", &format!("snapshots/{NEW}/x.gguf"), "damaged");
    fs::create_dir(here.join("tales")).unwrap();
    fs::copy(DEMO, here.join("tales/demo")).unwrap();
    let output = cache.bitnet(&RUN).arg("tales/demo").current_dir(here).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn a_model_that_is_not_in_the_cache_says_how_to_get_it() {
    let cache = Cache::new();
    cache.write("tales/cut", "blobs/cc.incomplete", "some");
    let index = r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#;
    cache.add("tales/shards", NEW, "config.json", "c1", b"{}");
    cache.add("tales/shards", NEW, "model.safetensors.index.json", "c2", index.as_bytes());
    cache.add("tales/shards", NEW, "model-1.safetensors", "c3", b"some");
    cache.add("tales/parts", NEW, "m-00001-of-00002.gguf", "c4", b"some");
    cache.add("tales/two", NEW, "a-i2_s.gguf", "c5", b"some");
    cache.add("tales/two", NEW, "a-tq2_0.gguf", "c6", b"some");
    let cases = [
        ("tales/none", 3, "`bitnet pull tales/none`"),
        ("tales/two:q8_0", 3, "`bitnet pull tales/two:q8_0`"),
        ("tales/cut", 3, "in part only: `bitnet pull tales/cut`"),
        ("tales/shards", 3, "in part only"),
        ("tales/parts", 3, "in part only"),
        ("tales/two", 2, "a-i2_s.gguf, a-tq2_0.gguf"),
        ("../tales/none", 3, "../tales/none"),
    ];
    for (name, code, words) in cases {
        let output = cache.bitnet(&RUN).arg(name).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{name}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{name}: {}", stderr(&output));
    }
}

#[test]
fn revisions_are_told_apart() {
    let cache = Cache::new();
    cache.add("tales/demo", OLD, "old.gguf", "aa", b"old");
    cache.add("tales/demo", NEW, "new.gguf", "bb", b"new");
    let path = |args: &[&str]| {
        let output =
            cache.bitnet(&["pull", "--offline", "tales/demo"]).args(args).output().unwrap();
        (output.status.code(), stdout(&output).to_owned() + stderr(&output))
    };
    let (code, said) = path(&[]);
    assert!(code == Some(3) && said.contains("several revisions"), "{said}");
    cache.write("tales/demo", "refs/main", NEW);
    cache.write("tales/demo", "refs/refs/pr/1", OLD);
    assert!(path(&[]).1.contains("new.gguf"));
    assert!(path(&["--revision", "refs/pr/1"]).1.contains("old.gguf"));
    assert!(path(&["--revision", OLD]).1.contains("old.gguf"));
    assert_eq!(path(&["--revision", "v2"]).0, Some(3));
}

#[test]
fn list_tells_what_there_is() {
    let cache = Cache::new();
    assert_eq!(cache.list(), Vec::<Value>::new());
    let output = cache.bitnet(&["list"]).unwrap();
    assert_eq!(stdout(&output), "");
    assert!(stderr(&output).contains("bitnet pull"));

    cache.add("tales/demo", NEW, "deep/m-00001-of-00002.gguf", "a1", b"one");
    cache.add("tales/demo", NEW, "deep/m-00002-of-00002.gguf", "a2", b"two!");
    cache.add("tales/demo", NEW, "README.md", "a3", b"text");
    cache.write("tales/demo", "refs/main", NEW);
    cache.add("tales/folder", OLD, "config.json", "b1", b"{}");
    cache.add("tales/folder", OLD, "model.safetensors", "b2", b"weights");
    cache.write("tales/folder", "blobs/b3.incomplete", "12345");
    cache.add("tales/text", NEW, "README.md", "d1", b"text");
    fs::create_dir(cache.repository("tales/empty")).unwrap();

    let rows = cache.list();
    let models: Vec<_> = rows.iter().map(|row| row["model"].as_str().unwrap()).collect();
    assert_eq!(models, ["tales/demo:deep/m-00001-of-00002.gguf", "tales/folder", "tales/folder"]);
    assert_eq!(rows[0]["bytes"], 7);
    assert_eq!(rows[0]["commit"], NEW);
    assert_eq!(rows[0]["refs"], serde_json::json!(["main"]));
    assert!(rows[0]["modified"].as_u64().unwrap() > 1_600_000_000);
    assert_eq!((&rows[1]["bytes"], &rows[1]["partial"]), (&9.into(), &false.into()));
    assert_eq!((&rows[2]["bytes"], &rows[2]["partial"]), (&5.into(), &true.into()));
    let output = cache.bitnet(&["list"]).unwrap();
    let lines: Vec<_> = stdout(&output).lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].contains("7 B") && lines[0].contains("main 22222222"), "{}", lines[0]);
    assert!(lines[2].contains("partial"), "{}", lines[2]);
}

#[cfg(unix)]
#[test]
fn links_that_lead_out_of_the_cache_are_not_followed() {
    let cache = Cache::new();
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("m.gguf");
    fs::copy(DEMO, &secret).unwrap();
    cache.add("tales/demo", NEW, "other.gguf", "a1", b"some");
    let snapshot = cache.repository("tales/demo").join("snapshots").join(NEW);
    symlink(&secret, &snapshot.join("m.gguf"));
    symlink(outside.path(), &snapshot.join("deep"));
    let output = cache.bitnet(&RUN).arg("tales/demo:m.gguf").output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert_eq!(cache.list().len(), 1);
    cache.bitnet(&["rm", "tales/demo", "--yes"]).unwrap();
    assert!(secret.exists() && !exists(&cache.repository("tales/demo")));
}

#[test]
fn rm_keeps_what_something_else_uses() {
    let cache = Cache::new();
    cache.add("tales/demo", OLD, "a.gguf", "aa", b"shared");
    cache.add("tales/demo", OLD, "old.gguf", "bb", b"12345678");
    cache.add("tales/demo", NEW, "b.gguf", "aa", b"shared");
    cache.write("tales/demo", "refs/main", NEW);
    cache.write("tales/demo", "refs/v1", OLD);
    let repository = cache.repository("tales/demo");

    // Nobody is there to be asked.
    let output = cache.bitnet(&["rm", "tales/demo"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("--yes"));
    assert_eq!(cache.list().len(), 3);

    let output = cache.bitnet(&["rm", "tales/demo:a.gguf", "--yes"]).unwrap();
    let freed = if cfg!(unix) { "0 B freed" } else { "6 B freed" };
    assert!(stderr(&output).contains(freed), "{}", stderr(&output));
    assert_eq!(cache.list().len(), 2);
    assert!(cfg!(windows) || repository.join("blobs/aa").exists());

    let output = cache.bitnet(&["rm", "tales/demo:old.gguf", "-y"]).unwrap();
    assert!(stderr(&output).contains("8 B freed"), "{}", stderr(&output));
    assert!(!exists(&repository.join("blobs/bb")));
    assert!(!exists(&repository.join("snapshots").join(OLD)));
    assert!(!exists(&repository.join("refs/v1")) && repository.join("refs/main").exists());

    let output = cache.bitnet(&["rm", "tales/demo:a.gguf", "-y"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));

    let output = cache.bitnet(&["rm", "tales/demo:b.gguf", "-y"]).unwrap();
    assert!(stderr(&output).contains("6 B freed"), "{}", stderr(&output));
    assert!(!exists(&repository));
}

#[test]
fn rm_takes_all_of_a_repository() {
    let cache = Cache::new();
    cache.add("tales/demo", NEW, "a.gguf", "aa", b"some");
    cache.write("tales/demo", "blobs/bb.incomplete", "partial");
    cache.add("tales/other", NEW, "a.gguf", "aa", b"some");
    let locks = cache.0.path().join("hub/.locks/models--tales--demo");
    fs::create_dir_all(&locks).unwrap();
    let lock = fs::File::create(locks.join("bb.lock")).unwrap();

    lock.lock().unwrap();
    let output = cache.bitnet(&["rm", "tales/demo", "-y"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("being downloaded"));
    drop(lock);

    let output = cache.bitnet(&["rm", "tales/demo", "-y", "--json"]).unwrap();
    assert!(stderr(&output).contains("11 B freed"), "{}", stderr(&output));
    let report: Value = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!(report, serde_json::json!({"model": "tales/demo", "removed": true, "bytes": 11}));
    assert!(!exists(&cache.repository("tales/demo")) && !exists(&locks));
    assert_eq!(cache.list().len(), 1);
    for (name, code) in [("tales/demo", 3), ("../x", 2), ("tales/..", 2), ("x", 2)] {
        let output = cache.bitnet(&["rm", name, "-y"]).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{name}: {}", stderr(&output));
    }
}

#[cfg(not(feature = "hub"))]
#[test]
fn a_program_without_downloads_says_how_to_get_them() {
    let cache = Cache::new();
    let output = cache.bitnet(&["pull", "tales/demo"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--features hub"), "{}", stderr(&output));
}
