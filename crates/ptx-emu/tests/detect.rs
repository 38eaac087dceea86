//! What the interpreter finds wrong with kernels: each small, and right but for one thing.
#![expect(clippy::unwrap_used, reason = "a failure is the result of a test")]

use ptx_emu::{Error, Launch, Memory, Module, Report, Space};

/// A kernel with these instructions, which takes the address of a buffer as `%rd1`; `%r1` is the thread, and `%r2` its lane.
fn kernel(body: &str) -> Module {
    let text = format!(
        ".version 8.4\n.target sm_80\n.address_size 64\n\n.visible .entry k(\n\t.param .u64 k_param_0\n)\n{{\n\
         \t.reg .pred \t%p<8>;\n\t.reg .b32 \t%r<32>;\n\t.reg .f32 \t%f<8>;\n\t.reg .b64 \t%rd<16>;\n\
         \t.shared .align 1024 .b8 room[4096];\n\
         \tld.param.u64 \t%rd1, [k_param_0];\n\tcvta.to.global.u64 \t%rd1, %rd1;\n\
         \tmov.u32 \t%r1, %tid.x;\n\tand.b32 \t%r2, %r1, 31;\n\
         \tmul.wide.u32 \t%rd2, %r1, 4;\n\tadd.s64 \t%rd3, %rd1, %rd2;\n\
         \tmov.u32 \t%r3, room;\n\tshl.b32 \t%r4, %r1, 2;\n\tadd.s32 \t%r5, %r3, %r4;\n\
         {body}\n\tret;\n}}\n"
    );
    Module::parse(&text).unwrap()
}

/// Runs it in a block of so many threads, on a buffer of as many words that nobody has written.
fn run(body: &str, threads: u32) -> (Result<Report, Error>, Vec<u8>) {
    let mut memory = Memory::new();
    let bytes = 4 * threads as usize;
    let address = memory.allocate(bytes);
    let launch = Launch {
        grid: [1, 1, 1],
        block: [threads, 1, 1],
        dynamic_shared: 0,
        args: &address.to_le_bytes(),
        cooperative: false,
        limit: 100_000,
    };
    let result = kernel(body).launch("k", &launch, &mut memory);
    (result, memory.read(address, bytes).unwrap().to_vec())
}

fn wrong(body: &str, threads: u32) -> Error {
    run(body, threads).0.unwrap_err()
}

fn words(body: &str, threads: u32) -> Vec<u32> {
    let (result, bytes) = run(body, threads);
    result.unwrap();
    bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
}

#[test]
fn what_is_right_runs() {
    let body = "\tst.shared.u32 \t[%r5], %r1;\n\tbar.sync \t0;\n\txor.b32 \t%r6, %r4, 128;\n\tadd.s32 \t%r6, %r3, %r6;\n\
                \tld.shared.u32 \t%r7, [%r6];\n\tst.global.u32 \t[%rd3], %r7;";
    // Each has what the thread 32 further has.
    assert_eq!(words(body, 64), (0..64).map(|thread| thread ^ 32).collect::<Vec<_>>());
}

#[test]
fn accesses_outside_of_buffers() {
    let past = wrong("\tst.global.u32 \t[%rd3+4], %r1;", 32);
    let Error::OutOfBounds { space: Space::Global, bytes: 4, place, .. } = past else {
        panic!("{past}")
    };
    assert_eq!(place.thread, 31);
    assert!(place.line.1.starts_with("st.global.u32"), "{place}");
    let before = wrong("\tst.global.u32 \t[%rd3+-4], %r1;", 32);
    assert!(matches!(before, Error::OutOfBounds { .. }), "{before}");
    let shared = wrong("\tst.shared.u32 \t[%r5+4092], %r1;", 32);
    assert!(matches!(shared, Error::OutOfBounds { space: Space::Shared, .. }), "{shared}");
}

#[test]
fn accesses_that_are_not_aligned() {
    let error = wrong("\tst.global.u32 \t[%rd1+2], %r1;", 1);
    assert!(matches!(error, Error::Misaligned { bytes: 4, .. }), "{error}");
    let error = wrong("\tst.shared.v2.u32 \t[%r3+4], {%r1, %r1};", 1);
    assert!(matches!(error, Error::Misaligned { bytes: 8, .. }), "{error}");
}

#[test]
fn memory_and_registers_that_nobody_has_written() {
    let error = wrong("\tld.global.u32 \t%r6, [%rd3];", 32);
    assert!(matches!(error, Error::Uninitialized { space: Space::Global, .. }), "{error}");
    let error = wrong("\tld.shared.u32 \t%r6, [%r5];", 32);
    assert!(matches!(error, Error::Uninitialized { space: Space::Shared, .. }), "{error}");
    let error = wrong("\tadd.s32 \t%r6, %r9, 1;", 32);
    assert!(
        matches!(&error, Error::UndefinedRegister { register, .. } if register == "%r9"),
        "{error}"
    );
    // Of one thread only.
    let half = "\tsetp.lt.u32 \t%p1, %r1, 31;\n\t@%p1 mov.u32 \t%r9, 5;\n\tadd.s32 \t%r6, %r9, 1;";
    let error = wrong(half, 32);
    assert!(
        matches!(&error, Error::UndefinedRegister { place, .. } if place.thread == 31),
        "{error}"
    );
}

/// The threads of a warp are ordered by nothing but what says so.
#[test]
fn accesses_to_shared_memory_in_no_order() {
    let exchange = |order: &str, by: u32| {
        format!(
            "\tst.shared.u32 \t[%r5], %r1;\n{order}\txor.b32 \t%r6, %r4, {by};\n\tadd.s32 \t%r6, %r3, %r6;\n\
             \tld.shared.u32 \t%r7, [%r6];\n\tst.global.u32 \t[%rd3], %r7;"
        )
    };
    for by in [4, 128] {
        let error = wrong(&exchange("", by), 64);
        let known = matches!(error, Error::Race { .. } | Error::Uninitialized { .. });
        assert!(known, "{error}");
        run(&exchange("\tbar.sync \t0;\n", by), 64).0.unwrap();
    }
    // What orders a warp does not order others.
    run(&exchange("\tbar.warp.sync \t-1;\n", 4), 64).0.unwrap();
    assert!(run(&exchange("\tbar.warp.sync \t-1;\n", 128), 64).0.is_err());
}

/// Reads of many threads, and then a write of one.
#[test]
fn a_write_after_reads_in_no_order() {
    let again = |order: &str| {
        format!(
            "\tst.shared.u32 \t[%r5], %r1;\n\tbar.sync \t0;\n\tld.shared.u32 \t%r7, [%r3];\n{order}\
             \tsetp.eq.u32 \t%p1, %r1, 5;\n\t@%p1 st.shared.u32 \t[%r3], %r7;"
        )
    };
    for threads in [32, 64] {
        let error = wrong(&again(""), threads);
        assert!(matches!(error, Error::Race { what: "a write and the read of", .. }), "{error}");
        run(&again("\tbar.sync \t0;\n"), threads).0.unwrap();
    }
    // The one thread that has read it may write it.
    let alone = "\tst.shared.u32 \t[%r5], %r1;\n\tld.shared.u32 \t%r7, [%r5];\n\tst.shared.u32 \t[%r5], %r7;";
    run(alone, 64).0.unwrap();
}

#[test]
fn two_writes_in_no_order() {
    let error = wrong("\tst.shared.u32 \t[%r3], %r1;", 64);
    assert!(matches!(error, Error::Race { what: "a write and the write of", .. }), "{error}");
    // The same value does no harm.
    run("\tmov.u32 \t%r6, 7;\n\tst.shared.u32 \t[%r3], %r6;", 64).0.unwrap();
}

#[test]
fn collectives_that_not_all_come_to() {
    let some = "\tsetp.lt.u32 \t%p1, %r2, 7;\n\t@%p1 bra \t$done;\n\tshfl.sync.bfly.b32 \t%r6|%p2, %r1, 1, 31, -1;\n$done:";
    let error = wrong(some, 32);
    assert!(matches!(error, Error::Divergence { .. } | Error::Deadlock { .. }), "{error}");
    // Threads that have ended do not come either.
    let gone = "\tsetp.lt.u32 \t%p1, %r2, 7;\n\t@%p1 ret;\n\tshfl.sync.bfly.b32 \t%r6|%p2, %r1, 1, 31, -1;";
    assert!(run(gone, 32).0.is_err());
}

#[test]
fn waiting_for_ever() {
    // Half of the warps wait at one barrier, the others at another.
    let two = "\tsetp.lt.u32 \t%p1, %r1, 32;\n\t@%p1 bra \t$first;\n\tbar.sync \t1;\n\tbra \t$done;\n$first:\n\tbar.sync \t0;\n$done:";
    let error = wrong(two, 64);
    assert!(matches!(error, Error::Deadlock { .. } | Error::Divergence { .. }), "{error}");
    let error = wrong("$again:\n\tadd.s32 \t%r1, %r1, 1;\n\tbra \t$again;", 32);
    assert!(matches!(error, Error::Endless { instructions: 100_000, .. }), "{error}");
}

#[test]
fn what_is_not_understood_is_said_when_it_is_read() {
    let text = ".version 8.4\n.target sm_80\n.address_size 64\n.visible .entry k()\n{\n\tfrobnicate.u32 \t%r1;\n}\n";
    let error = Module::parse(text).err().unwrap();
    let Error::Syntax { line: 6, text, .. } = &error else { panic!("{error}") };
    assert!(text.contains("frobnicate"), "{error}");
}

#[test]
fn arguments_and_shapes_are_those_of_the_kernel() {
    let mut memory = Memory::new();
    let module = kernel("");
    let launch = |grid, block, args| Launch {
        grid,
        block,
        dynamic_shared: 0,
        args,
        cooperative: false,
        limit: 1000,
    };
    let address = [0; 8];
    let mut launched =
        |name: &str, launch: &Launch<'_>| module.launch(name, launch, &mut memory).unwrap_err();
    let one = [1, 1, 1];
    assert!(matches!(launched("other", &launch(one, one, &address)), Error::NoEntry(_)));
    let short = launched("k", &launch(one, one, &address[..4]));
    assert!(matches!(short, Error::Arguments { expected: 8, given: 4, .. }), "{short}");
    for (grid, block) in [([0, 1, 1], one), (one, [1025, 1, 1]), ([1, 65536, 1], one)] {
        assert!(matches!(launched("k", &launch(grid, block, &address)), Error::Launch { .. }));
    }
}

/// The lanes of `mma.m16n8k32`, against a product that is computed plainly.
#[test]
fn tensor_cores_multiply() {
    // Each thread gives four registers of bytes of `a`, two of `b`, and takes four sums.
    let body = "\tmul.lo.s32 \t%r10, %r1, 33686018;\n\tadd.s32 \t%r11, %r10, 50529027;\n\tadd.s32 \t%r12, %r10, 16843009;\n\
                \tand.b32 \t%r10, %r10, 50529027;\n\tand.b32 \t%r11, %r11, 50529027;\n\tand.b32 \t%r12, %r12, 50529027;\n\
                \tmov.u32 \t%r13, 0;\n\
                \tmma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 \t{%r20, %r21, %r22, %r23}, {%r10, %r11, %r12, %r10}, {%r11, %r12}, {%r13, %r13, %r13, %r13};\n\
                \tst.global.u32 \t[%rd3], %r20;";
    let found = words(body, 32);
    let byte = |thread: u32, which: usize, index: usize| {
        let first = thread.wrapping_mul(33_686_018);
        let of = [first, first.wrapping_add(50_529_027), first.wrapping_add(16_843_009)];
        u32::from((of[which] & 50_529_027).to_le_bytes()[index])
    };
    // Row `g` of `a`: columns 4t to 4t + 3 in the first register of thread 4g + t, 16 further in the third. Column `n` of `b`
    // likewise in those of thread 4n + t.
    let product = |row: u32, column: u32| -> u32 {
        (0..4)
            .flat_map(|t| (0..4).map(move |i| (t, i)))
            .map(|(t, i)| {
                byte(4 * row + t, 0, i) * byte(4 * column + t, 1, i)
                    + byte(4 * row + t, 2, i) * byte(4 * column + t, 2, i)
            })
            .sum()
    };
    // The first sum of thread 4g + t is that of row g and column 2t.
    let expected: Vec<_> = (0..32).map(|thread| product(thread / 4, 2 * (thread % 4))).collect();
    assert_eq!(found, expected);
}

/// Four warps multiply ones by what each thread has written two words of: its number.
const TOGETHER: &str = "\tst.shared.u32 \t[%r5], %r1;\n\tst.shared.u32 \t[%r5+512], %r1;\n\tfence.proxy.async.shared::cta;\n\tbar.sync \t0;\n\
    \tmov.u32 \t%r10, 16843009;\n\tmov.u32 \t%r20, 0;\n\tmov.u32 \t%r21, 0;\n\tmov.u32 \t%r22, 0;\n\tmov.u32 \t%r23, 0;\n\
    \tshr.u32 \t%r6, %r3, 4;\n\tcvt.u64.u32 \t%rd4, %r6;\n\tor.b64 \t%rd4, %rd4, 4611686293305360384;\n\
    \twgmma.fence.sync.aligned;\n\
    \twgmma.mma_async.sync.aligned.m64n8k32.s32.u8.s8 \t{%r20, %r21, %r22, %r23}, {%r10, %r10, %r10, %r10}, %rd4, 1;\n\
    \twgmma.commit_group.sync.aligned;\n\twgmma.wait_group.sync.aligned \t0;\n\
    \tst.global.u32 \t[%rd3], %r20;\n";

/// The same with a part of it in another way.
fn together(part: &str, other: &str) -> String {
    assert!(TOGETHER.contains(part), "{part}");
    TOGETHER.replace(part, other)
}

#[test]
fn four_warps_multiply_together() {
    // Column n is in row n of 128 bytes, whose pieces of 16 bytes are swapped by the number of the row.
    let column = |n: u32| -> u32 {
        (0..2)
            .flat_map(|piece| (0..4).map(move |word| (32 * n + 4 * (piece ^ n) + word) % 128))
            .sum()
    };
    let expected: Vec<_> = (0..128).map(|thread| column(2 * (thread % 4))).collect();
    assert_eq!(words(TOGETHER, 128), expected);
    // One product after another adds to the same sums, and needs nothing between.
    let twice: String = TOGETHER
        .lines()
        .flat_map(|line| [line; 2].into_iter().take(1 + usize::from(line.contains("mma_async"))))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(words(&twice, 128), expected.iter().map(|sum| 2 * sum).collect::<Vec<_>>());
    // Nor need sums be there where nothing is added.
    let first = together("%rd4, 1;", "%rd4, 0;").replace("\tmov.u32 \t%r20, 0;\n", "");
    assert_eq!(words(&first, 128), expected);
}

#[test]
fn products_of_four_warps_that_not_all_come_to() {
    let some = |threads: u32| {
        let begin =
            format!("\tsetp.lt.u32 \t%p1, %r1, {threads};\n\t@%p1 bra \t$done;\n\twgmma.fence");
        together("\twgmma.fence", &begin) + "$done:"
    };
    for (body, threads) in [(TOGETHER.to_owned(), 96), (some(32), 128), (some(1), 128)] {
        let error = wrong(&body, threads);
        assert!(matches!(error, Error::Divergence { .. }), "{error}");
    }
}

#[test]
fn registers_of_products_that_are_under_way() {
    let wait = "\twgmma.wait_group.sync.aligned \t0;\n";
    let cases = [
        (wait, "".to_owned(), "%r20"),
        (wait, wait.replace('0', "1"), "%r20"),
        ("\twgmma.commit_group.sync.aligned;\n", String::new(), "%r20"),
        (wait, format!("\tmov.u32 \t%r22, 0;\n{wait}"), "%r22"),
        (wait, format!("\tmov.u32 \t%r10, 0;\n{wait}"), "%r10"),
        (wait, format!("\tadd.s32 \t%r11, %r10, 1;\n{wait}"), "%r10"),
        // Of another product.
        (
            "\twgmma.commit",
            "\twgmma.mma_async.sync.aligned.m64n8k32.s32.u8.s8 \t{%r24, %r25, %r26, %r27}, {%r20, %r21, %r22, %r23}, %rd4, 0;\n\twgmma.commit".to_owned(),
            "%r20",
        ),
    ];
    for (part, other, register) in cases {
        let error = wrong(&together(part, &other), 128);
        let Error::InFlight { what, .. } = &error else { panic!("{other}: {error}") };
        assert_eq!(*what, format!("register {register}"), "{error}");
    }
    let error = wrong(&together("\twgmma.fence.sync.aligned;\n", ""), 128);
    assert!(matches!(error, Error::Unfenced { .. }), "{error}");
    // Sums that are changed behind the fence.
    let changed = together("\twgmma.mma_async", "\tmov.u32 \t%r21, 1;\n\twgmma.mma_async");
    let error = wrong(&changed, 128);
    assert!(matches!(&error, Error::Unfenced { what, .. } if what == "register %r21"), "{error}");
}

#[test]
fn shared_memory_that_products_read() {
    let fence = "\tfence.proxy.async.shared::cta;\n";
    let bar = "\tbar.sync \t0;\n";
    let store = "\tst.shared.u32 \t[%r5], %r1;\n";
    // Not shown to products; before it is written; by one thread of all; not to other threads.
    let late = format!("{bar}{fence}");
    let hidden = [
        together(fence, ""),
        together(fence, "").replace(store, &format!("{fence}{store}")),
        together(fence, "\tsetp.eq.u32 \t%p1, %r1, 7;\n\t@%p1 fence.proxy.async;\n"),
        together(&format!("{fence}{bar}"), &late),
    ];
    for body in hidden {
        let error = wrong(&body, 128);
        let Error::Unfenced { what, .. } = &error else { panic!("{body}: {error}") };
        assert!(what.starts_with("shared memory at"), "{error}");
    }
    let error = wrong(&together(bar, ""), 128);
    assert!(matches!(error, Error::Race { .. }), "{error}");
    let error = wrong(&together("\tst.shared.u32 \t[%r5+512], %r1;\n", ""), 128);
    assert!(matches!(error, Error::Uninitialized { space: Space::Shared, .. }), "{error}");
    let error = wrong(&together("\tshr.u32 \t%r6, %r3, 4;", "\tmov.u32 \t%r6, 192;"), 128);
    assert!(matches!(error, Error::Uninitialized { .. }), "{error}");
    let error = wrong(&together("\tshr.u32 \t%r6, %r3, 4;", "\tmov.u32 \t%r6, 256;"), 128);
    assert!(matches!(error, Error::OutOfBounds { space: Space::Shared, .. }), "{error}");
    // Written again while it is read, and before all have waited.
    let wait = "\twgmma.wait_group.sync.aligned \t0;\n";
    for again in [format!("{store}{wait}"), format!("{wait}{store}")] {
        let error = wrong(&together(wait, &again), 128);
        assert!(matches!(error, Error::InFlight { .. }), "{error}");
    }
    run(&together(wait, &format!("{wait}{bar}{store}")), 128).0.unwrap();
}

#[test]
fn descriptors_that_mean_nothing() {
    let cases = [
        // No order of pieces; one that is not known; bits that are none; eight rows that begin anywhere.
        ("4611686293305360384", "274877972480"),
        ("4611686293305360384", "9223372311732748288"),
        ("4611686293305360384", "4611686293305376768"),
        ("\tshr.u32 \t%r6, %r3, 4;", "\tmov.u32 \t%r6, 8;"),
        // Not the same for all.
        ("\tshr.u32 \t%r6, %r3, 4;", "\tshr.u32 \t%r6, %r5, 8;\n\tshl.b32 \t%r6, %r6, 1;"),
    ];
    for (part, other) in cases {
        let error = wrong(&together(part, other), 128);
        assert!(matches!(error, Error::Trap { .. }), "{other}: {error}");
    }
}

/// Runs a kernel in two blocks of 32 threads, on zeros.
fn two(body: &str, cooperative: bool) -> Result<Report, Error> {
    let mut memory = Memory::new();
    let address = memory.copy_of(&[0; 1024]);
    let launch = Launch {
        grid: [2, 1, 1],
        block: [32, 1, 1],
        dynamic_shared: 0,
        args: &address.to_le_bytes(),
        cooperative,
        limit: 100_000,
    };
    kernel(body).launch("k", &launch, &mut memory)
}

/// Two blocks of 32 threads that are there at once: the first writes words, counts, and the second waits for the count and reads them. Each of the
/// steps is a part of what they do.
fn two_blocks(publish: &str, wait: &str) -> Result<Report, Error> {
    let body = format!(
        "\tmov.u32 \t%r6, %ctaid.x;\n\tsetp.eq.u32 \t%p1, %r6, 1;\n\t@%p1 bra \tSECOND;\n\
         \tst.global.u32 \t[%rd3+256], %r1;\n\tbar.sync \t0;\n{publish}\tret;\nSECOND:\n\
         {wait}\tbar.sync \t0;\n\tld.global.u32 \t%r8, [%rd3+256];\n\tst.global.u32 \t[%rd3+512], %r8;"
    );
    two(&body, true)
}

#[test]
fn blocks_that_are_there_at_once_and_do_not_wait() {
    let fence = "\tmembar.gl;\n";
    let count = "\tsetp.eq.u32 \t%p2, %r1, 0;\n\t@%p2 atom.global.add.u32 \t%r7, [%rd1], 1;\n";
    let wait = |load: &str| {
        format!(
            "AGAIN:\n\t{load}.u32 \t%r7, [%rd1];\n\tsetp.eq.u32 \t%p2, %r7, 0;\n\t@%p2 bra \tAGAIN;\n"
        )
    };
    let (relaxed, acquire) = (wait("atom.global.add"), wait("ld.acquire.gpu.global"));
    let relaxed = relaxed.replace("[%rd1];", "[%rd1], 0;");
    let publish = [fence, count].concat();
    two_blocks(&publish, &acquire).unwrap();
    two_blocks(&publish, &(relaxed.clone() + fence)).unwrap();
    for (publish, wait, why) in [
        (publish.as_str(), "", "it does not wait"),
        (count, &acquire, "what was written is not published"),
        (&publish, &relaxed, "what was published is not taken over"),
        ("", "", "nobody does anything"),
    ] {
        let found = two_blocks(publish, wait);
        let Err(Error::RaceOfBlocks { other: 0, place, .. }) = found else {
            panic!("{why}: {found:?}")
        };
        assert_eq!(place.block, [1, 0, 0], "{why}");
    }
}

/// What others have read is not written before they are waited for.
#[test]
fn blocks_that_write_what_others_read() {
    let body = "\tmov.u32 \t%r6, %ctaid.x;\n\tsetp.eq.u32 \t%p1, %r6, 1;\n\
                \t@!%p1 st.global.u32 \t[%rd3], %r1;\n\
                \t@!%p1 ld.global.u32 \t%r7, [%rd3];\n\t@%p1 st.global.u32 \t[%rd3], %r1;";
    // Also where they have run one after another.
    for at_once in [true, false] {
        let found = two(body, at_once);
        let Err(Error::RaceOfBlocks { other: 0, .. }) = found else { panic!("{found:?}") };
    }
}
