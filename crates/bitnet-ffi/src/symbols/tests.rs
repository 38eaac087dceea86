//! Small files of all forms; real ones are read by `.ci/second-backend.sh`.

use object::write::{Object, Symbol, SymbolSection};
use object::{BinaryFormat, Endianness, SymbolFlags, SymbolKind, SymbolScope};

use super::*;

/// An object file that offers some symbols and takes others. It passes for a library until it is opened.
pub(crate) fn object(
    (format, architecture): (BinaryFormat, Architecture),
    offers: &[&str],
    takes: &[&str],
) -> Vec<u8> {
    let mut object = Object::new(format, architecture, Endianness::Little);
    let section = object.section_id(object::write::StandardSection::Text);
    let symbol = |name: &str, section, scope| Symbol {
        name: name.into(),
        value: 0,
        size: 0,
        kind: SymbolKind::Text,
        scope,
        weak: false,
        section,
        flags: SymbolFlags::None,
    };
    object.append_section_data(section, &[0xc3; 16], 1);
    for name in offers {
        object.add_symbol(symbol(name, SymbolSection::Section(section), SymbolScope::Dynamic));
    }
    for name in takes {
        object.add_symbol(symbol(name, SymbolSection::Undefined, SymbolScope::Unknown));
    }
    // Nobody else sees it.
    let hidden = SymbolSection::Section(section);
    object.add_symbol(symbol("llama_hidden", hidden, SymbolScope::Compilation));
    object.write().unwrap()
}

const ELF: (BinaryFormat, Architecture) = (BinaryFormat::Elf, Architecture::X86_64);
const MACHO: (BinaryFormat, Architecture) = (BinaryFormat::MachO, Architecture::X86_64);
const MACHO_ARM: (BinaryFormat, Architecture) = (BinaryFormat::MachO, Architecture::Aarch64);
const COFF: (BinaryFormat, Architecture) = (BinaryFormat::Coff, Architecture::X86_64);

/// A static archive of files.
pub(crate) fn archive(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = b"!<arch>\n".to_vec();
    for (name, data) in files {
        let name = format!("{name}/");
        let size = data.len();
        let head = format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, 644);
        bytes.extend(head.as_bytes());
        bytes.extend(data);
        if size % 2 == 1 {
            bytes.push(b'\n');
        }
    }
    bytes
}

/// A universal file for x86-64 and aarch64.
fn universal(parts: [Vec<u8>; 2]) -> Vec<u8> {
    let cpus: [u32; 2] = [0x0100_0007, 0x0100_000c];
    let mut bytes = [0xcafe_babe_u32, 2].map(u32::to_be_bytes).as_flattened().to_vec();
    let mut at = 4096;
    for (cpu, part) in cpus.into_iter().zip(&parts) {
        let len = part.len() as u32;
        bytes.extend([cpu, 3, at, len, 12].map(u32::to_be_bytes).as_flattened());
        at += len.next_multiple_of(4096);
    }
    for part in parts {
        bytes.resize(bytes.len().next_multiple_of(4096), 0);
        bytes.extend(part);
    }
    bytes
}

/// A library of Windows with these functions, and one that it takes from a library.
fn dll(offers: &[&str], (library, takes): (&str, &str)) -> Vec<u8> {
    const AT: u32 = 0x1000;
    let mut data: Vec<u8> = Vec::new();
    let put = |data: &mut Vec<u8>, at: usize, words: &[u32]| {
        let bytes = words.iter().flat_map(|word| word.to_le_bytes());
        data.splice(at..at + 4 * words.len(), bytes);
    };
    let text = |data: &mut Vec<u8>, bytes: &[u8]| {
        let at = AT + data.len() as u32;
        data.extend(bytes);
        data.push(0);
        at
    };
    let count = offers.len() as u32;
    // The directory of exports, then addresses, names and numbers; behind it that of imports, with two lists.
    let (addresses, names) = (40_u32, 40 + 4 * count);
    let numbers = names + 4 * count;
    let imports = (numbers + 2 * count).next_multiple_of(8);
    let (lookup, bound) = (imports + 40, imports + 56);
    data.resize(bound as usize + 16, 0);
    let own = text(&mut data, b"llama.dll");
    put(&mut data, 12, &[own, 1, count, count, AT + addresses, AT + names, AT + numbers]);
    for (index, name) in offers.iter().enumerate() {
        let at = text(&mut data, name.as_bytes());
        put(&mut data, addresses as usize + 4 * index, &[0x800]);
        put(&mut data, names as usize + 4 * index, &[at]);
        data[numbers as usize + 2 * index] = index as u8;
    }
    let library = text(&mut data, library.as_bytes());
    let taken = text(&mut data, &[b"\0\0", takes.as_bytes()].concat());
    put(&mut data, imports as usize, &[AT + lookup, 0, 0, library, AT + bound]);
    put(&mut data, lookup as usize, &[taken]);
    put(&mut data, bound as usize, &[taken]);
    data.resize(0x600, 0);

    let mut file = b"MZ".to_vec();
    file.resize(64, 0);
    put(&mut file, 60, &[64]);
    let half = |file: &mut Vec<u8>, values: &[u16]| {
        file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    };
    let words = |file: &mut Vec<u8>, values: &[u32]| {
        file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    };
    file.extend(b"PE\0\0");
    half(&mut file, &[0x8664, 1]);
    words(&mut file, &[0, 0, 0]);
    half(&mut file, &[240, 0x2022, 0x20b, 0]);
    words(&mut file, &[0, 0x600, 0, 0, AT, 0x8000_0000, 1, 0x1000, 0x200]);
    half(&mut file, &[6, 0, 0, 0, 6, 0]);
    words(&mut file, &[0, 0x3000, 0x200, 0]);
    half(&mut file, &[3, 0]);
    words(&mut file, &[0x10_0000, 0, 0x1000, 0, 0x10_0000, 0, 0x1000, 0, 0, 16]);
    words(&mut file, &[AT, 0x600, AT + imports, 40]);
    words(&mut file, &[0; 28]);
    file.extend(b".rdata\0\0");
    words(&mut file, &[0x600, AT, 0x600, 0x200, 0, 0, 0, 0x4000_0040]);
    file.resize(0x200, 0);
    file.extend(data);
    file
}

fn found(data: &[u8]) -> SymbolAnalysis {
    analyze(Path::new("folder/libtest"), data).unwrap()
}

fn files() -> Vec<Vec<u8>> {
    let (offers, takes) = (["llama_decode", "llama_init_from_model"], ["cudaMalloc", "fopen"]);
    let elf = object(ELF, &offers, &takes);
    vec![
        elf.clone(),
        object(MACHO, &offers, &takes),
        object(COFF, &offers, &takes),
        universal([object(MACHO, &offers, &takes), object(MACHO_ARM, &offers, &takes)]),
        archive(&[("llama.o", elf), ("notes.txt", b"no object".to_vec())]),
        dll(&offers, ("cudart64.dll", "cudaMalloc")),
    ]
}

#[test]
fn all_forms_say_the_same() {
    use Form::{Archive, Elf, MachO, Pe};
    let forms = [Elf, MachO, Pe, MachO, Archive, Pe];
    for (data, form) in files().into_iter().zip(forms) {
        let found = found(&data);
        assert_eq!(found.form, form);
        assert_eq!(found.llama_symbols, ["llama_decode", "llama_init_from_model"], "{form}");
        assert_eq!(found.cuda_symbols, ["cudaMalloc"], "{form}");
        assert!(found.bitnet_symbols.is_empty() && found.quantization_symbols.is_empty());
        let backends = detect_kernel_backends(&found);
        assert_eq!(backends, [KernelBackend::LlamaCpu, KernelBackend::LlamaCuda], "{form}");
    }
    let universal = found(&files()[3]);
    assert_eq!(universal.architectures, ["aarch64", "x86_64"]);
    assert_eq!(found(&files()[5]).needed, ["cudart64.dll"]);
}

/// What one object of an archive takes from another is nothing that the archive needs.
#[test]
fn archives_are_one() {
    let one = object(ELF, &["ggml_vec_dot_i2_i8_s"], &["helper", "malloc"]);
    let two = object(ELF, &["helper"], &["ggml_vec_dot_i2_i8_s"]);
    let found = found(&archive(&[("one.o", one), ("two.o", two)]));
    assert_eq!(found.imported.iter().collect::<Vec<_>>(), ["malloc"]);
    assert_eq!(found.quantization_symbols, ["ggml_vec_dot_i2_i8_s"]);
    assert_eq!(detect_kernel_backends(&found), [KernelBackend::I2sAvx2]);
}

/// The families of which each piece of evidence speaks, and no others.
#[test]
fn families_follow_from_evidence() {
    use KernelBackend::{I2sAvx2, I2sCuda, I2sNeon, Iq2sCpu, Iq2sCuda, LlamaCpu, Tl1Neon};
    let arm = (BinaryFormat::Elf, Architecture::Aarch64);
    let none: &[KernelBackend] = &[];
    for (of, offers, expected) in [
        (ELF, &["llama_decode"][..], none),
        (ELF, &["llama_decode", "llama_new_context_with_model"], &[LlamaCpu]),
        (ELF, &["ggml_vec_dot_i2_i8_s"], &[I2sAvx2]),
        (arm, &["ggml_vec_dot_i2_i8_s"], &[I2sNeon]),
        (arm, &["ggml_qgemm_lut"], &[Tl1Neon]),
        (ELF, &["bitlinear_int8xint2"], &[I2sCuda]),
        (ELF, &["dequantize_row_iq2_s"], &[Iq2sCpu]),
        (ELF, &["dequantize_iq2_s_cuda"], &[Iq2sCuda]),
        (ELF, &["main", "_ZN5other4nameE"], none),
    ] {
        assert_eq!(
            detect_kernel_backends(&found(&object(of, offers, &[]))),
            expected,
            "{offers:?}"
        );
    }
    // A mangled name of C++ that only looks like it.
    let other = object(ELF, &["?data@CUdata_t@llama"], &[]);
    assert!(found(&other).cuda_symbols.is_empty());
}

#[test]
fn kinds_are_known_by_their_names() {
    for symbol in ["cuInit", "cuLaunchKernel", "cublasCreate_v2", "ggml_backend_cuda_init"] {
        assert!(is_cuda(symbol), "{symbol}");
    }
    for symbol in
        ["_Z7convertPKf__global__", "__device_stub__add", "GGML_CUDA_init", "setCudaDevice"]
    {
        assert!(is_cuda(symbol), "{symbol}");
    }
    for symbol in ["current", "cute", "cu", "curl_easy_init", "llama_decode", "ggml_cpu_has_cuda"] {
        assert!(!is_cuda(symbol), "{symbol}");
    }
    for symbol in ["bitnet_eval", "ggml_bitnet_init", "bitlinear_int8xint2"] {
        assert!(is_bitnet(symbol), "{symbol}");
    }
    for symbol in ["quantize_i2_s", "ggml_quantize_chunk", "ggml_qgemm_lut", "to_i2_s_x"] {
        assert!(is_quantization(symbol), "{symbol}");
    }
    assert!(!is_bitnet("orbitnet_x") && !is_quantization("requantize"));
}

/// Reports look as they should, and long lists are cut.
#[test]
fn a_report_tells_all() {
    let offers = ["bitnet_eval", "bitnet_tokenize", "ggml_backend_metal_init", "llama_decode"];
    let text = found(&object(ELF, &offers, &[])).report(1);
    for line in [
        "Library: libtest",
        "Form:    ELF, x86_64",
        "Symbols: 4 exported, 0 imported",
        "Bitnet symbols:   2 found\n  - bitnet_eval\n  ...",
        "Llama symbols:    1 found\n  - llama_decode\n\n",
        "CUDA symbols:     0 found\n  Inference: no CUDA, but another GPU",
        "Quantization:     0 found",
        "No family of kernels that is known.",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let text = found(&files()[5]).report(9);
    assert!(text.contains("Needs:   cudart64.dll"), "{text}");
    assert!(text.contains("Detected: Llama_CUDA (llama_init_from_model, llama_decode"), "{text}");
    let text = found(&object(ELF, &["llama_decode"], &[])).report(9);
    assert!(text.contains("Inference: CPU-only backend"), "{text}");
}

#[test]
fn what_is_no_library_is_refused() {
    let texts = archive(&[("notes.txt", b"no object".to_vec())]);
    let thin = [b"!<thin>\n", &texts[8..]].concat();
    for (data, words) in [
        (&b""[..], "the file is empty"),
        (b"hello, this is text", "no library of Linux, macOS or Windows"),
        (&texts, "no object file in it"),
        (&thin, "thin archive"),
        (b"\0asm\x01\0\0\0", "no library"),
    ] {
        let error = analyze(Path::new("libtest"), data).unwrap_err();
        assert!(matches!(error, Error::NoLibrary { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    let error = analyze_library(Path::new("no/such/file")).unwrap_err();
    assert!(matches!(error, Error::Read { .. }), "{error}");
}

/// A damaged file is an error, or says less: nothing else.
#[test]
fn damage_is_an_error() {
    for data in files() {
        for end in 0..data.len() {
            // Whatever comes of it.
            let _ = analyze(Path::new("libtest"), &data[..end]);
        }
        let mut changed = data.clone();
        for at in 0..data.len().min(2048) {
            for value in [0, 1, 0x7f, 0xff] {
                changed[at] = value;
                let _ = analyze(Path::new("libtest"), &changed);
            }
            changed[at] = data[at];
        }
    }
}

/// Inputs of the fuzz target: `BITNET_WRITE_SEEDS=1` writes them.
#[test]
fn seeds_are_these_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/library");
    for (index, data) in files().into_iter().enumerate() {
        let path = folder.join(index.to_string());
        if std::env::var_os("BITNET_WRITE_SEEDS").is_some() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&path, &data).unwrap();
        }
        assert!(fs::read(&path).unwrap() == data, "run the test with BITNET_WRITE_SEEDS=1");
    }
}
