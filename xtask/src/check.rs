//! What there is to look at when a GPU is at hand: is it right, and how fast is it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

/// Flags of `gpu-check`.
#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// Where to write the results, as JSON.
    #[arg(long, value_name = "FILE", default_value = "gpu-check.json")]
    out: PathBuf,
    /// The program, of a build with the feature `cuda`; it is built now if not given.
    #[arg(long, value_name = "PROGRAM")]
    bitnet: Option<PathBuf>,
    /// The device.
    #[arg(long, value_name = "DEVICE", default_value = "cuda:0")]
    device: String,
    /// The model to measure with: `demo` is the one in the program; random weights in the shape of BitNet 2B-4T if not given.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Tokens of the prompt that is measured.
    #[arg(long, value_name = "N", default_value_t = 512)]
    n_prompt: usize,
    /// Tokens that are generated.
    #[arg(long, value_name = "N", default_value_t = 128)]
    n_gen: usize,
    /// Texts that are generated at the same time.
    #[arg(long, value_name = "N,...", default_value = "1,8,64")]
    n_parallel: String,
    /// Times that each is measured.
    #[arg(long, value_name = "N", default_value_t = 5)]
    repetitions: usize,
    /// Measure no products by themselves.
    #[arg(long)]
    no_speed: bool,
    /// compute-sanitizer, of NVIDIA's toolkit: runs a text under it, if given.
    #[arg(long, value_name = "PROGRAM")]
    sanitizer: Option<PathBuf>,
    /// A Python that has PyTorch: measures it on the same shape in bfloat16, if given.
    #[arg(long, value_name = "PROGRAM", conflicts_with = "model")]
    rival: Option<PathBuf>,
}

/// What measures PyTorch.
const RIVAL: &str = include_str!("../rival.py");
/// The shape of BitNet 2B-4T, as it takes it.
const SHAPE: [&str; 7] = [
    "--hidden=2560",
    "--layers=30",
    "--heads=20",
    "--kv-heads=5",
    "--head-size=128",
    "--ffn=6912",
    "--vocabulary=128256",
];

/// Tools of compute-sanitizer.
const SANITIZERS: [&str; 4] = ["memcheck", "racecheck", "synccheck", "initcheck"];
/// Ways to run passes, and the flags for each: those that give the same text as the processor, and the one that gives one near it.
const EXACT: [(&str, [&str; 2]); 2] = [
    ("passes as a graph", ["--gpu-passes", "graph"]),
    ("passes as a kernel", ["--gpu-passes", "kernel"]),
];
const NEAR: (&str, [&str; 2]) = ("attention in less", ["--gpu-precision", "auto"]);
/// Tokens of the text that must be the same.
const TOKENS: &str = "64";

/// Does it all, and writes down what came out; fails at the end if anything was wrong.
pub(crate) fn run(args: &Check) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let bitnet = match &args.bitnet {
        Some(bitnet) => bitnet.clone(),
        None => build()?,
    };
    let device = ["--device", &args.device];
    let mut report = Report::default();

    let version = report.say("version", Command::new(&bitnet).arg("--version"))?;
    report.put("version", version.trim());
    let devices = report.say("devices", Command::new(&bitnet).args(["devices", "--json"]))?;
    report.put("devices", serde_json::from_str::<Value>(&devices)?);

    let mut check = Command::new(&bitnet);
    check.args(["check", "--json"]).args(device).args(args.no_speed.then_some("--no-speed"));
    let check = report.say("check", &mut check)?;
    report.put("check", serde_json::from_str::<Value>(&check).unwrap_or_default());

    let text = |device: &[&str]| {
        let mut command = Command::new(&bitnet);
        command.args(["run", "Once upon a time", "--temp", "0", "-n", TOKENS]).args(device);
        command
    };
    let expected = report.say("text of the processor", &mut text(&["--device", "cpu"]))?;
    for (way, flags) in EXACT {
        let flags = [device, flags].concat();
        let found = report.say(&format!("text, {way}"), &mut text(&flags))?;
        report.must(found == expected, &format!("the text with {way} is another"));
    }
    if let Some(sanitizer) = &args.sanitizer {
        for tool in SANITIZERS {
            let mut command = Command::new(sanitizer);
            command.args(["--tool", tool, "--error-exitcode", "9"]).arg(&bitnet);
            command.args(["run", "Once upon a time", "--temp", "0", "-n", "3"]).args(device);
            let said = report.say(&format!("compute-sanitizer {tool}"), &mut command)?;
            let last = said.lines().rev().find(|line| line.contains("SUMMARY")).unwrap_or_default();
            report.put(tool, last.trim_start_matches("========= "));
        }
    }

    let model = args.model(&bitnet, folder.path())?;
    let [n_prompt, n_gen, repetitions] =
        [args.n_prompt, args.n_gen, args.repetitions].map(|n| n.to_string());
    let rivals = match &args.rival {
        Some(python) => {
            let script = folder.path().join("rival.py");
            fs::write(&script, RIVAL)?;
            let mut rival = Command::new(python);
            rival.arg(script).args(SHAPE).args(device).args(["--n-parallel", &args.n_parallel]);
            rival.args(["--n-prompt", &n_prompt, "--n-gen", &n_gen, "--repetitions", &repetitions]);
            let said = report.say("speed of PyTorch", &mut rival)?;
            let said: Value = serde_json::from_str(&said).unwrap_or_default();
            report.put("pytorch", said.clone());
            let tests = said["tests"].as_array().cloned().unwrap_or_default();
            report.must(!tests.is_empty(), "no speed of PyTorch was measured");
            tests
        }
        None => Vec::new(),
    };
    for (way, flags) in EXACT.into_iter().chain([NEAR]) {
        let mut bench = Command::new(&bitnet);
        bench.args(["bench", "-o", "json"]).args(flags).args(device);
        bench.args(["-p", &n_prompt, "-n", &n_gen, "-r", &repetitions]);
        bench.args(["--n-parallel", &args.n_parallel]);
        if let Some(model) = &model {
            bench.arg("-m").arg(model);
        }
        let bench = report.say(&format!("speed, {way}"), &mut bench)?;
        report.speeds(way, &bench, &rivals);
    }

    fs::write(&args.out, serde_json::to_string_pretty(&report.results)? + "\n")?;
    println!("{}", args.out.display());
    match &report.wrong[..] {
        [] => Ok(()),
        wrong => bail!("{}", wrong.join("; ")),
    }
}

impl Check {
    /// The model to measure with, or none: the one in the program.
    fn model(&self, bitnet: &Path, folder: &Path) -> Result<Option<PathBuf>> {
        match &self.model {
            Some(model) if model.as_os_str() == "demo" => Ok(None),
            Some(model) => Ok(Some(model.clone())),
            None => {
                let file = folder.join("2b-4t.gguf");
                let mut synth = Command::new(bitnet);
                synth.args(["synth", "--shape", "bitnet-2b-4t"]).arg(&file);
                let output = output(&mut synth)?;
                if !output.status.success() {
                    bail!("bitnet synth: {}", String::from_utf8_lossy(&output.stderr));
                }
                Ok(Some(file))
            }
        }
    }
}

/// The program, built.
fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--release", "-p", "bitnet-cli", "--features", "cuda"]);
    build.args(["--message-format", "json-render-diagnostics"]);
    let output = output(&mut build)?;
    let said = String::from_utf8_lossy(&output.stdout);
    let made = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut programs = made.filter_map(|made| made["executable"].as_str().map(PathBuf::from));
    match programs.next_back() {
        Some(program) if output.status.success() => Ok(program),
        _ => bail!("bitnet was not built: {}", String::from_utf8_lossy(&output.stderr)),
    }
}

fn output(command: &mut Command) -> Result<Output> {
    command.output().with_context(|| format!("{command:?}"))
}

/// What came out.
#[derive(Debug, Default)]
struct Report {
    results: Map<String, Value>,
    wrong: Vec<String>,
}

impl Report {
    fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.results.insert(name.to_owned(), value.into());
    }

    fn must(&mut self, holds: bool, otherwise: &str) {
        if !holds {
            println!("wrong: {otherwise}");
            self.wrong.push(otherwise.to_owned());
        }
    }

    /// What a command says; one that fails is wrong, and the others go on.
    fn say(&mut self, what: &str, command: &mut Command) -> Result<String> {
        println!("== {what}");
        let output = output(command)?;
        let said = String::from_utf8_lossy(&output.stderr);
        self.must(output.status.success(), &format!("{what}: {}", said.trim()));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Prints a line for each test, with how many times as fast it is as that of the rival, and keeps all that was said.
    fn speeds(&mut self, way: &str, said: &str, rivals: &[Value]) {
        let tests: Vec<Value> = serde_json::from_str(said).unwrap_or_default();
        self.must(!tests.is_empty(), &format!("no speed was measured with {way}"));
        for test in &tests {
            let speed = test["median_ts"].as_f64().unwrap_or_default();
            let (name, texts) = (test["test"].as_str().unwrap_or_default(), &test["n_parallel"]);
            let same = |rival: &&Value| rival["test"] == name && rival["n_parallel"] == *texts;
            let rival = rivals.iter().find(same).and_then(|rival| rival["median_ts"].as_f64());
            let times = rival.map_or(String::new(), |rival| {
                format!(", {:.2} times the {rival:.1} of PyTorch", speed / rival)
            });
            println!("{name} of {texts}, {way}: {speed:.1} tokens/s{times}");
        }
        self.put(&format!("speed, {way}"), json!(tests));
    }
}
