//! The first and only process of the machine that `avx512.sh` emulates. It runs the tests listed in
//! `/tests` and says `INIT: all passed` if they did, then turns the machine off.

use std::arch::asm;
use std::ffi::{CStr, c_char, c_int, c_ulong, c_void};
use std::process::Command;
use std::time::Duration;
use std::{fs, panic, ptr, thread};

unsafe extern "C" {
    fn mount(
        source: *const c_char,
        target: *const c_char,
        kind: *const c_char,
        flags: c_ulong,
        data: *const c_void,
    ) -> c_int;
    fn iopl(level: c_int) -> c_int;
    fn tcdrain(file: c_int) -> c_int;
}

fn main() {
    panic::set_hook(Box::new(|reason| {
        println!("INIT: FAILED: {reason}");
        power_off()
    }));
    mount_all();
    let passed = run_all();
    println!("INIT: {}", if passed { "all passed" } else { "FAILED" });
    power_off();
}

/// Makes the folders that tests expect of a Linux system.
fn mount_all() {
    fs::create_dir_all("/tmp").expect("/tmp");
    for (kind, target) in [(c"proc", c"/proc"), (c"devtmpfs", c"/dev")] {
        fs::create_dir_all(path(target)).expect("a folder to mount on");
        // SAFETY: the strings end with NUL, and these file systems take no data.
        let status =
            unsafe { mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, ptr::null()) };
        assert_eq!(status, 0, "cannot mount {target:?}");
    }
}

fn path(text: &CStr) -> &str {
    text.to_str().expect("an ASCII path")
}

/// Runs each line of `/tests`, a binary in `/` and the folder to run it in, with the variables in
/// `/environment`. Whether there were any and all passed.
fn run_all() -> bool {
    let environment = fs::read_to_string("/environment").expect("/environment");
    let variables: Vec<_> = environment.lines().filter_map(|line| line.split_once('=')).collect();
    let tests = fs::read_to_string("/tests").expect("/tests");
    let mut passed = !tests.is_empty();
    for (binary, folder) in tests.lines().filter_map(|line| line.split_once(' ')) {
        println!("INIT: {binary}");
        let status = Command::new(format!("/{binary}"))
            .args(["--nocapture", "--test-threads=1"])
            .envs(variables.iter().copied())
            .current_dir(folder)
            .status();
        println!("INIT: {binary}: {status:?}");
        passed &= status.is_ok_and(|status| status.success());
    }
    passed
}

/// Asks Bochs to stop, by the word it listens for on its own port.
fn power_off() -> ! {
    // SAFETY: waits until the serial line has sent everything; changes no memory.
    unsafe { tcdrain(1) };
    thread::sleep(Duration::from_millis(200));
    // SAFETY: as root on a machine of its own, this process may use ports.
    if unsafe { iopl(3) } == 0 {
        for byte in *b"Shutdown" {
            // SAFETY: the port is Bochs's; writing to it reads and changes no memory.
            unsafe {
                asm!("out dx, al", in("dx") 0x8900_u16, in("al") byte, options(nomem, nostack))
            };
        }
    }
    loop {
        thread::park();
    }
}
