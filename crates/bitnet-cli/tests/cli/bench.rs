//! `bitnet bench` as people and programs use it. How fast it is, is no test.

use serde_json::Value;

use crate::bitnet;

/// stdout of `bitnet bench` on the demo model, small.
fn bench(args: &[&str]) -> String {
    let output = bitnet().args(["bench", "-p", "4", "-n", "2", "-t", "1"]).args(args).unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// What must be true of any result.
fn check(result: &Value, test: &str, samples: usize) {
    assert_eq!(result["test"], test, "{result}");
    assert_eq!(result["n_threads"], 1);
    assert_eq!(result["model_type"], "bitnet-b1.58 I2_S");
    for field in ["model_size", "model_n_params", "model_n_products"] {
        assert!(result[field].as_u64().unwrap() > 1_000_000, "{field}");
    }
    let speeds: Vec<_> =
        result["samples_ts"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    assert_eq!(speeds.len(), samples);
    let tokens = result["n_prompt"].as_u64().unwrap() + result["n_gen"].as_u64().unwrap();
    for (speed, time) in speeds.iter().zip(result["samples_ns"].as_array().unwrap()) {
        let product = speed * time.as_f64().unwrap() / 1e9;
        assert!((product - tokens as f64).abs() < 1e-6, "{product} of {tokens} tokens");
    }
    let (least, most) = (
        speeds.iter().copied().fold(f64::MAX, f64::min),
        speeds.iter().copied().fold(0.0, f64::max),
    );
    for field in ["avg_ts", "median_ts"] {
        let speed = result[field].as_f64().unwrap();
        assert!(least * 0.999 <= speed && speed <= most * 1.001, "{field}");
    }
}

#[test]
fn a_table_has_the_columns_of_llama_bench() {
    let table = bench(&["-r", "1"]);
    let rows: Vec<Vec<_>> =
        table.lines().map(|line| line.split('|').map(str::trim).collect()).collect();
    let columns =
        ["model", "size", "params", "backend", "layout", "cache", "threads", "test", "t/s"];
    assert_eq!(rows[0][1..=columns.len()], columns);
    assert_eq!(rows[0].len(), columns.len() + 2);
    assert_eq!(rows.len(), 4);
    for (row, test) in rows[2..].iter().zip(["pp4", "tg2"]) {
        assert_eq!(row.len(), rows[0].len());
        assert_eq!((row[1], row[7], row[8]), ("bitnet-b1.58 I2_S", "1", test));
        assert_eq!((row[5], row[6]), ("i2s_r32", "f32"));
        assert!(row[2].ends_with("GiB") && row[3].ends_with(" M"), "{row:?}");
        assert!(row[9].ends_with("± 0.00"), "{row:?}");
    }
}

#[test]
fn json_has_every_sample() {
    let results: Vec<Value> =
        serde_json::from_str(&bench(&["-o", "json", "-r", "3", "-pg", "4,2"])).unwrap();
    assert_eq!(results.len(), 3);
    for (result, test) in results.iter().zip(["pp4", "tg2", "pp4+tg2"]) {
        check(result, test, 3);
        for field in ["bandwidth", "peak", "ts_per_gbs", "share_of_peak"] {
            assert!(result[field].is_null(), "{field}");
        }
    }
}

#[test]
fn a_line_of_json_for_each_test_of_each_depth() {
    let lines = bench(&["-o", "jsonl", "-r", "1", "-d", "16,0-20+20", "--no-warmup"]);
    let results: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let tests = ["pp4 @ d16", "tg2 @ d16", "pp4", "tg2", "pp4 @ d20", "tg2 @ d20"];
    assert_eq!(results.len(), tests.len());
    for (result, test) in results.iter().zip(tests) {
        check(result, test, 1);
    }
}

#[test]
fn a_roofline_relates_speeds_to_the_machine() {
    let lines = bench(&["-o", "jsonl", "-r", "1", "--roofline", "--isa", "scalar"]);
    let results: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let number = |i: usize, field: &str| results[i][field].as_f64().unwrap();
    check(&results[0], "pp4", 1);
    assert_eq!(results[0]["backend"], "CPU scalar");
    let share = number(0, "median_ts") * number(0, "model_n_products") / number(0, "peak") / 1e9;
    assert!((number(0, "share_of_peak") - share).abs() < 1e-9);
    assert!(results[0]["ts_per_gbs"].is_null() && results[1]["share_of_peak"].is_null());
    let speed = number(1, "median_ts") / number(1, "bandwidth");
    assert!((number(1, "ts_per_gbs") - speed).abs() < 1e-9);
}

#[test]
fn csv_is_a_line_of_names_and_a_line_for_each_test() {
    let csv = bench(&["-o", "csv", "-r", "2"]);
    let lines: Vec<Vec<_>> = csv
        .lines()
        .map(|line| {
            line.strip_prefix('"').unwrap().strip_suffix('"').unwrap().split("\",\"").collect()
        })
        .collect();
    assert_eq!(lines.len(), 3);
    assert!(lines.iter().all(|line| line.len() == lines[0].len()));
    let column = |name: &str| lines[0].iter().position(|found| *found == name).unwrap();
    assert_eq!([lines[1][column("test")], lines[2][column("test")]], ["pp4", "tg2"]);
    assert_eq!(lines[1][column("model_filename")], "the demo model");
    assert!(lines[1][column("avg_ts")].parse::<f64>().unwrap() > 0.0);
    assert_eq!(lines[1][column("bandwidth")], "");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    for (args, code, words) in [
        (&["-p", "0", "-n", "0"][..], 2, "no tests"),
        (&["-d", "1-0x"], 2, "no number or range"),
        (&["-d", "0-4*2"], 2, "no number or range"),
        (&["-pg", "512"], 2, "two numbers"),
        (&["-r", "0"], 2, "repetitions"),
        (&["-p", "4", "-d", "509"], 4, "context of 512"),
        (&["-p", "4", "-t", "0"], 2, "0 threads"),
        (&["-p", "4", "-m", "missing.gguf"], 3, "missing.gguf"),
    ] {
        let output = bitnet().arg("bench").args(args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(words), "{args:?}: {stderr}");
        assert!(output.stdout.is_empty());
    }
}
