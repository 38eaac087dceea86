//! Kernels that take one number after another.

use bitnet_kernels::op::{AddArgs, AddFn};

use crate::gpu::{Args, GATES, Gpu, Random, bits, reference};

/// Neither is a multiple of the threads of a block.
const COUNTS: [usize; 3] = [1, 255, 1000];

fn shape(n: usize) -> ([u32; 3], u32, usize) {
    ([n.div_ceil(256) as u32, 1, 1], 256, 0)
}

/// Numbers, and some that are not finite.
fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut numbers = Random::new(seed).floats(n);
    for (i, odd) in [f32::INFINITY, f32::NAN, -0.0, 1e38, -1e-40].into_iter().enumerate() {
        if let Some(number) = numbers.get_mut(3 * i + 2) {
            *number = odd;
        }
    }
    numbers
}

#[test]
fn sums_are_those_of_the_processor() {
    for target in ["sm_61", "sm_80"] {
        for n in COUNTS {
            let (mut sum, x) = (numbers(n, 1), numbers(n + 1, 2)[1..].to_vec());
            let mut gpu = Gpu::new(target);
            let (to, from) = (gpu.upload(&sum), gpu.upload(&x));
            gpu.launch("add_f32", shape(n), &Args::default().with(to).with(from).with(n as i32));
            (reference().select::<AddFn>(None).unwrap().run)(AddArgs { x: &mut sum, y: &x });
            assert_eq!(bits(&gpu.download(to, n)), bits(&sum), "{target}, {n}");
        }
    }
}

#[test]
fn gates_by_themselves_are_those_of_the_processor() {
    for target in ["sm_61", "sm_80"] {
        for (activation, by) in (0_i32..).zip(GATES) {
            for n in COUNTS {
                let (mut gate, up) = (numbers(n, 3), Random::new(4).floats(n));
                let mut gpu = Gpu::new(target);
                let (to, from) = (gpu.upload(&gate), gpu.upload(&up));
                let args = Args::default().with(to).with(from).with(activation).with(n as i32);
                gpu.launch("gate_f32", shape(n), &args);
                by(&mut gate, &up);
                assert_eq!(bits(&gpu.download(to, n)), bits(&gate), "{target}, {activation}, {n}");
            }
        }
    }
}

#[test]
fn numbers_are_taken_from_places() {
    for target in ["sm_61", "sm_80"] {
        for n in COUNTS {
            let mut random = Random::new(5);
            let from = random.floats(3000);
            let at: Vec<u32> = (0..n).map(|_| random.below(3000) as u32).collect();
            let mut gpu = Gpu::new(target);
            let (numbers, places) = (gpu.upload(&from), gpu.upload(&at));
            let to = gpu.room::<f32>(n);
            let args = Args::default().with(numbers).with(places).with(to).with(n as i32);
            gpu.launch("gather_f32", shape(n), &args);
            let expected: Vec<_> = at.iter().map(|&at| from[at as usize]).collect();
            assert_eq!(bits(&gpu.download(to, n)), bits(&expected), "{target}, {n}");
        }
    }
}

/// Rows that are there go on; others stay where they are.
#[test]
fn rows_go_on_with_their_next_tokens() {
    let rows = 600_i32;
    let absent = |row: &i32| row % 7 == 1;
    for target in ["sm_61", "sm_80"] {
        let mut gpu = Gpu::new(target);
        let place = |row: i32| if absent(&row) { -1 } else { row / 2 };
        let positions: Vec<_> = (0..rows + 1).map(place).collect();
        let before: Vec<_> = (0..rows + 1).map(|row| 10_000 + row).collect();
        let next: Vec<_> = (0..rows).map(|row| 3 * row).collect();
        let (tokens, at, next) = (gpu.upload(&before), gpu.upload(&positions), gpu.upload(&next));
        let args = Args::default().with(tokens).with(at).with(next).with(rows);
        gpu.launch("step_advance", shape(rows as usize), &args);
        let goes_on = |row: &i32| *row < rows && !absent(row);
        let token = |row: i32| if goes_on(&row) { 3 * row } else { 10_000 + row };
        let expected: Vec<_> = (0..rows + 1).map(token).collect();
        assert_eq!(gpu.download::<i32>(tokens, rows as usize + 1), expected, "{target}");
        let position = |row: i32| place(row) + i32::from(goes_on(&row));
        let expected: Vec<_> = (0..rows + 1).map(position).collect();
        assert_eq!(gpu.download::<i32>(at, rows as usize + 1), expected, "{target}");
    }
}
