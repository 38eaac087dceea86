//! That a conversion kept what it had to.

use std::path::Path;

use bitnet_kernels::Format;
use sha2::{Digest, Sha256};

use super::{Conversion, Planned};
use crate::source::{Contents, ternary_sha256};
use crate::{Checkpoint, Error, StoredTensor, sha256};

/// What is the same in a model before and after its conversion.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Proof {
    /// Ternary matrices.
    pub matrices: usize,
    /// [`Contents::ternary_sha256`] of the model as it was.
    pub before: String,
    /// That of what was written, read again from the disk.
    pub after: String,
    /// Other tensors that were found to hold the same numbers.
    pub numbers: usize,
    /// Other tensors, which are less precise now.
    pub rounded: usize,
}

impl Conversion<'_> {
    /// Reads what was written and compares. `path` is where it lies, `name` where it will.
    pub(super) fn prove(
        &self,
        path: &Path,
        name: &str,
        read: &(dyn Fn(u64) -> bool + Sync),
    ) -> Result<Proof, Error> {
        let changed = |what: String| Error::Unequal { file: name.to_owned(), what };
        let written = Checkpoint::open(path)?;
        let found = Contents::new(&written, None)?;
        let (mut before, mut after) = (Vec::new(), Vec::new());
        let mut proof = Proof {
            matrices: 0,
            before: String::new(),
            after: String::new(),
            numbers: 0,
            rounded: 0,
        };
        for planned in &self.tensors {
            let name = &planned.tensor.name;
            let tensor = written.tensor(name);
            let tensor = tensor.ok_or_else(|| changed(format!("tensor `{name}` is missing")))?;
            match planned.ternary {
                Some(ref ternary) => {
                    let sum = found.matrix(tensor)?.sha256();
                    if sum != ternary.sha256 || !found.is_ternary(tensor)? {
                        return Err(changed(format!("tensor `{name}` holds other weights")));
                    }
                    before.push((&**name, ternary.sha256.clone()));
                    after.push((&**name, sum));
                    proof.matrices += 1;
                }
                None => {
                    let sum = self.sum_of_numbers(&self.contents, planned.tensor)?;
                    match sum == self.sum_of_numbers(&found, tensor)? {
                        true => proof.numbers += 1,
                        false if rounds(planned) => proof.rounded += 1,
                        false => {
                            return Err(changed(format!("tensor `{name}` holds other numbers")));
                        }
                    }
                }
            }
            if !read(self.length(planned)) {
                return Err(Error::Stopped);
            }
        }
        (proof.before, proof.after) = (ternary_sha256(before), ternary_sha256(after));
        Ok(proof)
    }

    fn sum_of_numbers(
        &self,
        contents: &Contents<'_>,
        tensor: &StoredTensor,
    ) -> Result<String, Error> {
        let mut digest = Sha256::new();
        for rows in contents.pieces(tensor)? {
            let numbers = contents.numbers(tensor, rows)?;
            let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
            digest.update(&bytes);
        }
        Ok(sha256::finish(digest))
    }
}

/// Whether numbers lose precision by being stored as something else.
fn rounds(planned: &Planned<'_>) -> bool {
    planned.to != planned.from && planned.to != Format::F32
}
