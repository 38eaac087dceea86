//! Every kernel this processor can run gives the bits of the plain definition.

use bitnet_kernels::{Cpu, Isa, conformance};

/// `BITNET_REQUIRE_ISA=avx2,neon` turns a skipped instruction set into a failure.
fn required() -> Vec<Isa> {
    let names = std::env::var("BITNET_REQUIRE_ISA").unwrap_or_default();
    let names = names.split(',').filter(|name| !name.is_empty());
    names.map(|name| name.parse().unwrap_or_else(|e| panic!("BITNET_REQUIRE_ISA: {e}"))).collect()
}

#[test]
fn every_kernel_gives_the_bits_of_its_definition() {
    let report = conformance::run(&Cpu::detect());
    println!("{report}");
    assert!(report.failures.is_empty());
    assert!(report.tested_on(Isa::Scalar) > 0);
    for isa in required() {
        assert!(report.tested_on(isa) > 0, "{isa} is required and was not tested");
        let skipped = report.skipped.iter().filter(|kernel| kernel.isa() == isa).count();
        assert_eq!(skipped, 0, "{isa} is required and {skipped} kernels were not tested");
    }
}
