//! `bitnet chat` as people and programs use it.

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use serde_json::Value;

use crate::{bitnet, stderr, stdout};

const STORY: &str = " there lived a king who had three sons";

/// A chat at temperature 0 with short answers, whose state is in `home`.
fn chat(home: &Path) -> Command {
    chat_at(home, "0")
}

fn chat_at(home: &Path, temperature: &str) -> Command {
    let mut command = bitnet();
    command.env("XDG_STATE_HOME", home).env("HOME", home);
    command.args(["chat", "-n", "8", "--temp", temperature]);
    command
}

#[test]
fn lines_are_messages_and_answers_go_to_stdout() {
    let home = tempfile::tempdir().unwrap();
    let output = chat(home.path()).write_stdin("Once upon a time\n").unwrap();
    assert!(output.status.success());
    assert_eq!(stdout(&output), format!("{STORY}\n"));
    let said = stderr(&output);
    assert!(said.contains("no chat template"), "{said}");
    for figure in ["prompt 6 tok", "gen 8 tok", "cached", "TTFT", "RSS"] {
        assert!(said.contains(figure), "{said:?} lacks {figure}");
    }
    // What is asked is nowhere on stdout; a flag does without figures, and one without a second answer.
    let mut command = chat(home.path());
    command.args(["--quiet", "Once upon a time", "--single-turn"]);
    let output = command.write_stdin("And then\n").unwrap();
    assert_eq!(stdout(&output), format!("{STORY}\n"));
    assert!(!stderr(&output).contains("TTFT"));
}

#[test]
fn what_was_said_before_counts_and_is_not_run_again() {
    let home = tempfile::tempdir().unwrap();
    let input =
        "Once upon a time there was a man who had\n\"\"\"\nThe king\nsaid\n\"\"\"\n/show history\n";
    let output = chat(home.path()).write_stdin(input).unwrap();
    let said = stderr(&output);
    assert!(said.contains("(16 cached)"), "{said}");
    assert!(said.contains("user: The king\nsaid\nassistant:"), "{said}");
    let [first, second] = stdout(&output).splitn(2, '\n').collect::<Vec<_>>()[..] else {
        panic!("{output:?}")
    };
    // The same text as one prompt gives the same.
    let prompt = format!("Once upon a time there was a man who had{first}\nThe king\nsaid");
    let run = bitnet().args(["run", "-n", "8", "--temp", "0", "-p", &prompt]).unwrap();
    assert_eq!(stdout(&run), second);
}

#[test]
fn answers_are_tried_again_and_taken_back() {
    let home = tempfile::tempdir().unwrap();
    let input =
        "Once upon a time\n/regen\n/undo\n/show history\nOnce upon a time\n/tokens\n/bye\nmore\n";
    let mut command = chat_at(home.path(), "0.9");
    // Another answer has another seed.
    let output = command.args(["-s", "5", "-q"]).write_stdin(input).unwrap();
    assert!(output.status.success(), "{output:?}");
    let answers: Vec<_> = stdout(&output).lines().collect();
    assert_eq!(answers.len(), 3, "{answers:?}");
    assert_ne!(answers[0], answers[1]);
    assert!(stderr(&output).contains("of 512 tokens of the context"));
    assert!(!stderr(&output).contains("user:"), "it was taken back");
}

#[test]
fn conversations_are_kept() {
    let home = tempfile::tempdir().unwrap();
    let said = |args: &[&str], input: &str| {
        let output = chat(home.path()).args(args).write_stdin(input).unwrap();
        assert!(output.status.success(), "{output:?}");
        stderr(&output).to_owned()
    };
    said(&["--session", "tale", "--system", "A tale."], "Once upon a time\n");
    let shown = said(&["--session", "tale"], "/show history\n/show system\n");
    assert!(shown.contains("user: Once upon a time\nassistant: "), "{shown}");
    assert!(shown.contains("A tale."), "{shown}");
    let shown = said(&[], "/load tale\n/save other\n/clear\n/show history\n/load other\n");
    assert!(shown.contains("2 messages\nkept in "), "{shown}");
    // Another model is said; what is damaged is refused.
    let folder = home.path().join("bitnet/chats");
    let file = folder.join("tale.json");
    let mut log: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    log["model"] = "0".repeat(64).into();
    fs::write(&file, log.to_string()).unwrap();
    assert!(said(&[], "/load tale\n").contains("held with another model"));
    fs::write(&file, "{").unwrap();
    let output = chat(home.path()).args(["--session", "tale"]).write_stdin("").output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("damaged"), "{output:?}");
    for name in ["../tale", "a/b", "", ".hidden"] {
        let output = chat(home.path()).args(["--session", name]).write_stdin("").output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}");
    }
}

#[test]
fn files_and_settings() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("tale.txt");
    fs::write(&file, "Once upon a time").unwrap();
    let input = format!(
        "/read {}\n/clear\n/set parameter num_predict 3\n/set parameter stop king\n/show parameters\n\
         /set quiet\nOnce upon a time\n/clear\n/set parameter num_predict 40\n/set format json\nSay\n",
        file.display()
    );
    let output = chat(home.path()).write_stdin(input).unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = stderr(&output);
    assert!(said.contains("num_predict 3\nstop [\"king\"]"), "{said}");
    assert_eq!(said.matches("TTFT").count(), 1, "{said}");
    let (read, rest) = stdout(&output).split_once('\n').unwrap();
    assert_eq!(read, STORY);
    let (short, json) = rest.split_once('\n').unwrap();
    assert_eq!(short, " there lived a");
    assert!(json.trim_start().starts_with('{'), "{json}");
}

#[test]
fn programs_are_told_what_is_wrong() {
    let home = tempfile::tempdir().unwrap();
    for (input, code, what) in [
        ("/nothing\n", 2, "no command /nothing"),
        ("/set parameter top_p 7\n", 2, "top-p"),
        ("/set parameter mood 7\n", 2, "no parameter mood"),
        ("/regen\n", 2, "no answer yet"),
        ("/undo\n", 2, "no message yet"),
        ("/copy\n", 2, "no answer yet"),
        ("/edit\n", 2, "needs a terminal"),
        ("/load nothing\n", 2, "no conversation called nothing"),
        ("/read no/such/file\n", 2, "no/such/file"),
        ("one two three four five six seven eight nine ten eleven twelve\n", 4, "/clear, /undo"),
    ] {
        let output = chat(home.path()).args(["-c", "16"]).write_stdin(input).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{input}: {output:?}");
        assert!(stderr(&output).contains(what), "{input}: {output:?}");
    }
    // To the end of the context.
    let output = chat(home.path()).args(["-c", "8"]).write_stdin("Once upon a time\n").unwrap();
    assert!(output.status.success());
    assert!(stderr(&output).contains("the context is full"), "{output:?}");
    let output =
        chat(home.path()).args(["--chat-template", "no-such"]).write_stdin("").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

/// On a terminal of its own.
#[cfg(unix)]
mod terminal {
    use std::time::Duration;

    use rexpect::session::{PtySession, spawn_command};

    use super::*;

    fn start(home: &Path, args: &[&str]) -> PtySession {
        start_with(home, 200, args)
    }

    /// On a terminal of so many columns.
    fn start_with(home: &Path, columns: usize, args: &[&str]) -> PtySession {
        let mut command = std::process::Command::new("sh");
        command.arg("-c").arg(format!("stty rows 50 cols {columns}; exec \"$0\" \"$@\""));
        command.arg(crate::program());
        command.env("XDG_STATE_HOME", home).env("HOME", home).env("TERM", "xterm");
        command.env("BITNET_TUNING", "none").env_remove("NO_COLOR");
        command.env("EDITOR", "/no/such/editor --wait").env_remove("VISUAL");
        command.args(["chat", "--temp", "0"]).args(args);
        let mut session = spawn_command(command, Some(60_000)).unwrap();
        session.exp_string("/help tells").unwrap();
        session.exp_string(">>> ").unwrap();
        session
    }

    fn send(session: &mut PtySession, keys: &str) {
        session.send(keys).unwrap();
        session.flush().unwrap();
    }

    #[test]
    fn lines_are_edited_and_kept() {
        let home = tempfile::tempdir().unwrap();
        let mut session = start(home.path(), &["-n", "8"]);
        // A slip, taken back.
        send(&mut session, "Once upon a timf\x7fe\r");
        session.exp_string("lived a king who had three sons").unwrap();
        session.exp_string("TTFT").unwrap();
        session.exp_string(">>> ").unwrap();
        // A mistake is no end.
        send(&mut session, "/nothing\r");
        session.exp_string("no command /nothing").unwrap();
        session.exp_string(">>> ").unwrap();
        send(&mut session, "\x04");
        session.exp_eof().unwrap();
        // What was typed is there again: the line before the last one.
        let mut session = start(home.path(), &["-n", "8"]);
        send(&mut session, "\x1b[A\x1b[A\r");
        session.exp_string("lived a king who had three sons").unwrap();
        // Ctrl-C twice.
        session.exp_string(">>> ").unwrap();
        send(&mut session, "\x03");
        session.exp_string("Ctrl-C again").unwrap();
        send(&mut session, "\x03");
        session.exp_eof().unwrap();
    }

    #[test]
    fn words_are_not_cut_at_the_end_of_a_line() {
        let home = tempfile::tempdir().unwrap();
        let mut session = start_with(home.path(), 37, &["-n", "12"]);
        send(&mut session, "Once upon a time\r");
        // Of the last word two letters were there.
        session.exp_string("three so\x1b[2D\x1b[K\r\nsons").unwrap();
        session.exp_string(">>> ").unwrap();
        send(&mut session, "/set nowordwrap\r");
        session.exp_string(">>> ").unwrap();
        send(&mut session, "/regen\r");
        session.exp_string("who had three sons").unwrap();
        session.exp_string("TTFT").unwrap();
        send(&mut session, "\x04");
        session.exp_eof().unwrap();
    }

    #[test]
    fn mistakes_are_no_end() {
        let home = tempfile::tempdir().unwrap();
        let chats = home.path().join("bitnet/chats");
        fs::create_dir_all(chats.join("folder.json")).unwrap();
        let alien = r#"{"model":"","system":null,"messages":[{"role":"alien","content":"beep"}]}"#;
        fs::write(chats.join("alien.json"), alien).unwrap();
        let mut session = start(home.path(), &["-n", "8", "-c", "24"]);
        let mut say = |line: &str, answer: &str| {
            send(&mut session, &format!("{line}\r"));
            session.exp_string(answer).unwrap();
            session.exp_string(">>> ").unwrap();
        };
        say("Once upon a time", "TTFT");
        for (line, answer) in [
            ("/edit", "cannot start"),
            ("/load folder", "cannot read"),
            ("/save folder", "cannot write"),
            ("/load alien", "nobody is \"alien\""),
            ("/set parameter seed -5", "-1 at least"),
            ("/set parameter num_predict -3", "-2 at least"),
            ("/set parameter repeat_last_n -7", "-1 at least"),
            ("/show license", "\n"),
        ] {
            say(line, answer);
        }
        // Where there can be no other answer, the old one stays.
        say("/system He was the son of a king, and had three horses, a dog and a daughter.", "");
        say("/regen", "does not fit the context");
        say("/show history", "assistant:  there lived");
        // Lines that are not to be kept are not.
        say("/set nohistory", "");
        say("/tokens", "tokens of the context");
        say("/set history", "");
        send(&mut session, "\x04");
        session.exp_eof().unwrap();
        let kept = fs::read_to_string(home.path().join("bitnet/history")).unwrap();
        assert!(kept.contains("/regen"), "{kept}");
    }

    #[test]
    fn ctrl_c_keeps_what_there_is_of_an_answer() {
        let home = tempfile::tempdir().unwrap();
        // It goes on and on: the context is what ends it.
        let mut session = start(home.path(), &["--ignore-eos", "-t", "1", "--isa", "scalar"]);
        send(&mut session, "Once upon a time\r");
        session.exp_string("there lived").unwrap();
        std::thread::sleep(Duration::from_millis(20));
        send(&mut session, "\x03");
        session.exp_string("TTFT").unwrap();
        session.exp_string(">>> ").unwrap();
        send(&mut session, "/show history\r");
        session.exp_string("assistant:  there lived").unwrap();
        session.exp_string(">>> ").unwrap();
        send(&mut session, "/exit\r");
        session.exp_eof().unwrap();
    }
}
