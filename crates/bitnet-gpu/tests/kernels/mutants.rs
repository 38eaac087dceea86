//! Kernels that are changed on purpose, one instruction at a time: the tests beside this one must find out. Of instructions that they
//! run, a few can be changed without a difference: a bound that is never met, a bit that is set anyway.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, process, thread};

use bitnet_gpu::kernels::KernelId;

use crate::gpu::Random;
use crate::texts::{self, TEXTS};

/// Names a text, a line of it, and what that is to be.
const MUTANT: &str = "BITNET_PTX_MUTANT";
/// Names a folder for the lines that are run.
const LINES: &str = "BITNET_PTX_LINES";
/// How many to try: [`SAMPLE`] if it is not set.
const COUNT: &str = "BITNET_PTX_MUTANTS";
/// Of all texts together.
const SAMPLE: usize = 12;

/// The text for devices from `target` on; with a change, in a process that is to try one.
pub(crate) fn text(target: &str) -> (&'static str, Cow<'static, str>) {
    let (name, text) = TEXTS.into_iter().find(|(name, _)| *name == target).unwrap();
    let Ok(mutant) = env::var(MUTANT) else { return (name, text.into()) };
    let mut parts = mutant.splitn(3, ':');
    if parts.next() != Some(name) {
        return (name, text.into());
    }
    let number: usize = parts.next().unwrap().parse().unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    let changed = parts.next().unwrap();
    lines[number] = changed;
    (name, (lines.join("\n") + "\n").into())
}

/// A changed instruction: the text, the kernel, the line from 0, and what it becomes.
#[derive(Clone, Debug)]
struct Mutant {
    target: &'static str,
    kernel: &'static str,
    line: usize,
    becomes: String,
}

/// What becomes what: each is another instruction on the same operands.
const CHANGES: [(&str, &str); 18] = [
    ("add.s32", "sub.s32"),
    ("sub.s32", "add.s32"),
    ("add.s64", "sub.s64"),
    ("add.rn.f32", "sub.rn.f32"),
    ("sub.rn.f32", "add.rn.f32"),
    ("mul.rn.f32", "add.rn.f32"),
    ("mul.lo.s32", "add.s32"),
    ("and.b32", "or.b32"),
    ("or.b32", "and.b32"),
    ("shl.b32", "shr.u32"),
    ("shr.u32", "shl.b32"),
    ("max.s32", "min.s32"),
    ("setp.lt.s32", "setp.le.s32"),
    ("setp.gt.s32", "setp.ge.s32"),
    ("setp.ge.s32", "setp.gt.s32"),
    ("setp.eq.s32", "setp.ne.s32"),
    ("setp.ne.s32", "setp.eq.s32"),
    ("setp.lt.f32", "setp.le.f32"),
];

/// What could become of an instruction.
fn changes(line: &str) -> Vec<String> {
    let mut changes: Vec<_> = CHANGES
        .iter()
        .filter(|(from, _)| line.contains(&format!("{from} ")))
        .map(|(from, to)| line.replacen(from, to, 1))
        .collect();
    let code = line.trim_start();
    // Nothing in place of what has an effect.
    let effects = ["st.", "bar.", "red.", "cp.async", "wgmma", "fence.proxy"];
    if effects.iter().any(|begin| code.starts_with(begin)) {
        changes.push(String::new());
    }
    // The other way at a branch.
    if let Some(rest) = code.strip_prefix("@%p") {
        changes.push(format!("\t@!%p{rest}"));
    } else if let Some(rest) = code.strip_prefix("@!%p") {
        changes.push(format!("\t@%p{rest}"));
    }
    // A number that is one more.
    let last = code.strip_suffix(';').and_then(|code| code.rsplit_once(", "));
    if let Some((before, number)) = last
        && let Ok(number) = number.parse::<i32>()
    {
        changes.push(format!("\t{before}, {};", number.wrapping_add(1)));
    }
    changes
}

/// Whether an instruction finds out if a number is negative, or what to add to it then before it is divided by a power of two: no
/// number there is.
fn rounds_sign(before: &str, code: &str) -> bool {
    let signs = |code: &str| code.contains("shr.s32") && code.ends_with(", 31;");
    signs(code) || signs(before) && code.contains("shr.u32")
}

/// Notes lines that a launch has run, in a process that is to tell.
pub(crate) fn note(target: &str, lines: &BTreeSet<usize>) {
    static FILES: AtomicUsize = AtomicUsize::new(0);
    let Some(folder) = env::var_os(LINES) else { return };
    let number = FILES.fetch_add(1, Ordering::Relaxed);
    let path = std::path::Path::new(&folder).join(format!("{target}.{number}.{}", process::id()));
    let lines: Vec<_> = lines.iter().map(ToString::to_string).collect();
    fs::write(path, lines.join("\n")).unwrap();
}

/// The lines of a text that all tests together run, from 1.
fn executed() -> BTreeSet<(&'static str, usize)> {
    let folder = tempfile::tempdir().unwrap();
    let tests = Command::new(env::current_exe().unwrap())
        .args(["--skip", "mutants::"])
        .env(LINES, folder.path())
        .stdout(Stdio::null())
        .status();
    assert!(tests.unwrap().success(), "the kernels as they are");
    let mut executed = BTreeSet::new();
    for file in fs::read_dir(folder.path()).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let (target, _) = TEXTS.into_iter().find(|(target, _)| name.starts_with(target)).unwrap();
        let lines = fs::read_to_string(&path).unwrap();
        executed.extend(lines.lines().map(|line| (target, line.parse().unwrap())));
    }
    executed
}

/// All that there are, of instructions that are run; and how many of all instructions these are.
fn all() -> (Vec<Mutant>, f64) {
    let executed = executed();
    let (mut mutants, mut instructions) = (Vec::new(), 0);
    for (target, text) in TEXTS {
        let (mut kernel, mut before) = (None, "");
        let tested = KernelId::ALL.iter().filter(|id| !texts::is_as_before(target, **id));
        for (line, code) in text.lines().enumerate() {
            if let Some((_, name)) = code.split_once(".entry ") {
                let name = name.trim_end_matches('(');
                kernel = tested.clone().map(|id| id.name()).find(|known| *known == name);
            }
            let Some(kernel) = kernel else { continue };
            let is_one = code.starts_with(['\t', ' ', '@']) && code.trim_end().ends_with(';');
            instructions += usize::from(is_one && !code.trim_start().starts_with('.'));
            let before = std::mem::replace(&mut before, code);
            if !executed.contains(&(target, line + 1)) || rounds_sign(before, code) {
                continue;
            }
            let changes = changes(code).into_iter();
            mutants.extend(changes.map(|becomes| Mutant { target, kernel, line, becomes }));
        }
    }
    (mutants, executed.len() as f64 / f64::from(u32::try_from(instructions).unwrap()))
}

/// The tests that a kernel is in.
fn tests(kernel: &str) -> &'static str {
    let begins = |with: &[&str]| with.iter().any(|with| kernel.starts_with(with));
    match kernel {
        _ if begins(&["rmsnorm", "quant"]) => "norm::",
        "i2s_gpu_megadecode" => "together::",
        _ if begins(&["i2s_gpu_gemv_mma_u8s8_norm", "i2s_gpu_gemv_mma_u8s8_quant"]) => "prepare::",
        _ if begins(&["i2s_gpu", "gemm_i2s"]) => "linear::",
        _ if begins(&["rope", "attn"]) => "attend::",
        "sample_draw" => "draw::",
        "add_f32" | "gate_f32" | "gather_f32" | "step_advance" => "rows::",
        _ if begins(&["head_", "gemv_head_i8", "gemm_head_i8"]) => "condensed::",
        _ if begins(&["bitnet_matmul", "wmma", "convert"]) => "mixed::",
        _ => "head::",
    }
}

impl Mutant {
    /// Whether the tests find out.
    fn is_found(&self) -> bool {
        let Mutant { target, line, becomes, kernel } = self;
        let tests = Command::new(env::current_exe().unwrap())
            .arg(tests(kernel))
            .env(MUTANT, format!("{target}:{line}:{becomes}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        !tests.unwrap().success()
    }
}

/// A sample, the same every time; `BITNET_PTX_MUTANTS=1000` tries as many.
#[test]
fn changed_kernels_are_found_out() {
    if env::var_os(MUTANT).is_some() {
        return;
    }
    let ((all, run), mut random) = (all(), Random::new(7));
    println!("{:.0} % of all instructions are run; {} changes", 100.0 * run, all.len());
    assert!(run > 0.85, "{run}");
    assert!(all.len() > 10_000, "{} changes", all.len());
    let count = env::var(COUNT).ok().and_then(|count| count.parse().ok()).unwrap_or(SAMPLE);
    let mutants: Vec<_> =
        (0..count).map(|_| all[random.below(all.len() as u64) as usize].clone()).collect();
    let threads = thread::available_parallelism().map_or(1, Into::into);
    let parts = mutants.chunks(mutants.len().div_ceil(threads));
    let missed: Vec<&Mutant> = thread::scope(|scope| {
        let part = |part: &'_ [Mutant]| -> Vec<usize> {
            (0..part.len()).filter(|&i| !part[i].is_found()).collect()
        };
        let started: Vec<_> =
            parts.map(|mutants| (mutants, scope.spawn(move || part(mutants)))).collect();
        started
            .into_iter()
            .flat_map(|(mutants, part)| {
                part.join().unwrap().into_iter().map(move |i| &mutants[i]).collect::<Vec<_>>()
            })
            .collect()
    });
    for Mutant { target, kernel, line, becomes } in &missed {
        println!("not found out: {target}, {kernel}, line {}: {becomes}", line + 1);
    }
    println!("{} of {count} changes found out", count - missed.len());
    assert!(4 * missed.len() <= count, "{} of {count} were not found out", missed.len());
}
