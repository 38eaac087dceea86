//! The host's side of the GPU, against a driver that runs kernels in an interpreter. Each case is a process of its own, which finds
//! that driver, or none.
#![expect(clippy::unwrap_used, reason = "a failure is the result of a test")]

mod device;
mod mixed;
mod peers;
mod probe;
mod simple;

use std::process::ExitCode;

fn main() -> ExitCode {
    let all = [probe::CASES, device::CASES, mixed::CASES, peers::CASES, simple::CASES];
    fake_cuda::cases::main(&all.concat())
}
