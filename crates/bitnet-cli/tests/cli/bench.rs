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
    let number = |field: &str| result[field].as_u64().unwrap();
    let tokens = number("n_parallel") * (number("n_prompt") + number("n_gen"));
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
        assert_eq!((row[5], row[6]), ("i2s_r32", "f16"));
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
fn sql_is_a_table_and_a_row_for_each_test() {
    let sql = bench(&["-o", "sql", "-r", "1"]);
    let (table, rows) = sql.split_once(");\n\n").unwrap();
    let columns: Vec<_> = table
        .strip_prefix("CREATE TABLE IF NOT EXISTS bitnet_bench (\n  ")
        .unwrap()
        .trim()
        .split(",\n  ")
        .map(|column| column.split_once(' ').unwrap())
        .collect();
    for column in [("model_filename", "TEXT"), ("n_threads", "INTEGER"), ("avg_ts", "REAL")] {
        assert!(columns.contains(&column), "{column:?} in {columns:?}");
    }
    let names: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
    let rows: Vec<_> = rows.lines().collect();
    assert_eq!(rows.len(), 2);
    for (row, test) in rows.iter().zip(["pp4", "tg2"]) {
        let into =
            format!("INSERT INTO bitnet_bench ({}) VALUES ('the demo model', ", names.join(", "));
        let values = row.strip_prefix(&into).unwrap().strip_suffix(");").unwrap();
        assert_eq!(values.split(", ").count(), names.len() - 1);
        assert!(values.contains(&format!("'{test}'")), "{row}");
    }
}

#[test]
fn results_can_go_to_stderr_too_with_what_is_being_done() {
    let mut command = bitnet();
    let args = ["bench", "-p", "4", "-n", "2", "-r", "2", "-o", "jsonl", "-oe", "md", "--progress"];
    let output = command.args(args).args(["--prio", "0"]).unwrap();
    let lines =
        |text: &[u8]| str::from_utf8(text).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines(&output.stdout).len(), 2);
    let said = lines(&output.stderr);
    assert_eq!(
        said[..3],
        ["test 1/2, pp4: warming up", "test 1/2, pp4: run 1/2", "test 1/2, pp4: run 2/2"]
    );
    assert!(said[3].starts_with("| model |") && said[5].contains("| pp4 |"), "{said:?}");
    assert_eq!(said[6], "test 2/2, tg2: warming up");
    assert!(said.last().unwrap().contains("| tg2 |"), "{said:?}");
}

#[test]
fn prompts_are_cut_as_asked() {
    let lines = bench(&["-o", "jsonl", "-r", "1", "-b", "3,64", "-ub", "2,512"]);
    let results: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let cuts: Vec<_> =
        results.iter().map(|r| (r["n_batch"].as_u64(), r["n_ubatch"].as_u64())).collect();
    let want = [(3, 2), (3, 3), (64, 2), (64, 64)].map(|(b, ub)| (Some(b), Some(ub)));
    assert_eq!(cuts, want.iter().flat_map(|&cut| [cut, cut]).collect::<Vec<_>>());
    for (result, test) in results.iter().zip(["pp4", "tg2"].iter().cycle()) {
        check(result, test, 1);
    }
    let table = bench(&["-r", "1", "-ub", "2,128"]);
    let rows: Vec<Vec<_>> =
        table.lines().map(|line| line.split('|').map(str::trim).collect()).collect();
    let column: Vec<_> = rows.iter().map(|row| row[8]).collect();
    assert_eq!(column, ["n_ubatch", "---:", "2", "2", "128", "128"]);
    // There is no more than 128.
    let output = bitnet().args(["bench", "-p", "4", "-n", "0", "-r", "1", "-ub", "512"]).unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("128 tokens at most, which is what -ub 512 gets"), "{said}");
}

#[test]
fn speeds_count_the_tokens_of_all_sequences() {
    let args = ["-o", "jsonl", "-r", "1", "-npl", "3,1", "-pg", "4,2", "-d", "0,5", "-ub", "2"];
    let lines = bench(&args);
    let results: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let at = |depth: &'static str| {
        ["pp4 x3", "tg2 x3", "pp4+tg2 x3", "pp4", "tg2", "pp4+tg2"]
            .map(|test| format!("{test}{depth}"))
    };
    let tests = [at(""), at(" @ d5")].concat();
    assert_eq!(results.len(), tests.len());
    for (index, (result, test)) in results.iter().zip(&tests).enumerate() {
        check(result, test, 1);
        assert_eq!(result["n_parallel"], if index % 6 < 3 { 3 } else { 1 });
    }
    let table = bench(&["-r", "1", "-npl", "2"]);
    assert!(table.lines().last().unwrap().contains("| tg2 x2 |"), "{table}");
    let csv = bench(&["-r", "1", "-npl", "2", "-o", "csv"]);
    assert!(csv.lines().next().unwrap().contains("\"n_depth\",\"n_parallel\""), "{csv}");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    for (args, code, words) in [
        (&["-p", "0", "-n", "0"][..], 2, "no tests"),
        (&["-d", "1-0x"], 2, "no number or range"),
        (&["-d", "0-4*2"], 2, "no number or range"),
        (&["-pg", "512"], 2, "two numbers"),
        (&["-r", "0"], 2, "repetitions"),
        (&["-ub", "0"], 2, "-ub 1 or more"),
        (&["-b", "0"], 2, "-b and"),
        (&["-npl", "0"], 2, "-npl from 1 to 128"),
        (&["-npl", "4,129"], 2, "129 sequences"),
        (&["--prio", "1"], 2, "`nice`"),
        (&["-oe", "xml"], 2, "sql"),
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
