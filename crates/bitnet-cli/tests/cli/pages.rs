//! `bitnet completions`, `bitnet man`, and what help looks like.

use std::fs;

use crate::{bitnet, stderr, stdout};

/// The commands that help lists.
fn commands() -> Vec<String> {
    let output = bitnet().arg("--help").unwrap();
    let lines = stdout(&output).lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = lines.take_while(|line| !line.is_empty()).filter(|line| line.starts_with("  "));
    let names = names.filter(|line| !line.starts_with("   "));
    let names: Vec<_> =
        names.filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect();
    assert!(names.len() > 15 && names.iter().any(|name| name == "run"), "{names:?}");
    names.into_iter().filter(|name| name != "help").collect()
}

#[test]
fn shells_are_told_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = bitnet().args(["completions", shell]).unwrap();
        for name in commands() {
            assert!(stdout(&output).contains(&name), "{name} in {shell}");
        }
        assert!(stdout(&output).contains("all-tokens"), "{shell}");
    }
    let output = bitnet().args(["completions", "cmd"]).assert().code(2).get_output().clone();
    assert!(stderr(&output).contains("bash, elvish, fish, powershell, zsh"), "{}", stderr(&output));
}

/// Bash takes it, and completes with it.
#[cfg(target_os = "linux")]
#[test]
fn bash_completes() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("bitnet.bash");
    fs::write(&script, &bitnet().args(["completions", "bash"]).unwrap().stdout).unwrap();
    let ask = "source \"$0\"; COMP_WORDS=(bitnet perp); COMP_CWORD=1; _bitnet bitnet perp bitnet; \
               echo \"${COMPREPLY[@]}\"";
    let bash = std::process::Command::new("bash").args(["-c", ask]).arg(&script).output();
    match bash {
        Ok(output) => assert_eq!(stdout(&output), "perplexity\n", "{}", stderr(&output)),
        // Not every system has it.
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}"),
    }
}

#[test]
fn each_command_has_its_page() {
    let page = bitnet().arg("man").unwrap();
    let page = stdout(&page);
    assert!(page.contains(".TH bitnet 1") && page.contains("bitnet\\-perplexity(1)"), "{page}");
    assert!(page.contains("out of memory, or the context is too small"), "{page}");
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man/man1");
    let output = bitnet().args(["man", "--out"]).arg(&pages).unwrap();
    assert_eq!(stdout(&output), "");
    let mut want: Vec<_> = commands().iter().map(|name| format!("bitnet-{name}.1")).collect();
    want.push("bitnet.1".to_owned());
    want.sort();
    let mut found: Vec<_> = fs::read_dir(&pages)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    assert_eq!(found, want);
    assert!(stderr(&output).contains(&format!("{} pages", want.len())), "{}", stderr(&output));
    let run = fs::read_to_string(pages.join("bitnet-run.1")).unwrap();
    assert!(run.contains("repeat\\-penalty"), "{run}");
    // A file is in the way.
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    bitnet().args(["man", "--out"]).arg(&file).assert().code(1);
}

/// Only help and wrong usage have colours: on terminals, unless `NO_COLOR` is set; elsewhere, if
/// `CLICOLOR_FORCE` is.
#[test]
fn colours_are_as_the_environment_asks() {
    let run = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = bitnet();
        command.env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").env_remove("CLICOLOR");
        let output = command.args(args).envs(variables.iter().copied()).output().unwrap();
        stdout(&output).to_owned() + stderr(&output)
    };
    let force = ("CLICOLOR_FORCE", "1");
    for args in [&["--help"][..], &["run", "--help"], &["run", "--no-such-flag"]] {
        assert!(!run(args, &[]).contains('\x1b'), "{args:?}: no terminal");
        assert!(run(args, &[force]).contains("\x1b["), "{args:?}: forced");
        assert!(!run(args, &[force, ("NO_COLOR", "1")]).contains('\x1b'), "{args:?}: none");
    }
    for args in [&["doctor"][..], &["kernels"], &["inspect", "--ternary"], &["run", "-n", "1", "x"]]
    {
        assert!(!run(args, &[force]).contains('\x1b'), "{args:?}");
    }
}
