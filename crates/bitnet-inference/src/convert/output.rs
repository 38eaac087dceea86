//! Files and folders that have their name only when they are whole.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use tempfile::{Builder, TempDir};

use super::{Conversion, Proof, Target};
use crate::Error;

impl Conversion<'_> {
    /// Writes the model, reads it again, and gives it its name when it is proven to be the same. `replace`
    /// says whether a file that has the name may go; a folder that is there must be empty. `progress` is
    /// told the bytes of each piece that was written or read again, twice [`Conversion::size`] in all; what
    /// it refuses ends the conversion.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`] where something is there; [`Error::Output`] where it cannot be written,
    /// [`Error::Stopped`] where `progress` refused, [`Error::Unequal`] where what was written is not the
    /// same. Nothing is left then but what was there.
    pub fn write(
        &self,
        path: &Path,
        replace: bool,
        progress: &(dyn Fn(u64) -> bool + Sync),
    ) -> Result<Proof, Error> {
        let fail = |source| Error::Output { file: path.display().to_string(), source };
        self.target.check_place(path, replace)?;
        let name = path.display().to_string();
        // A link stays, and what it leads to is replaced.
        let place = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let parent = match place.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let base = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Where it is not removed it shows what it is: the process was ended from outside.
        let prefix = format!(".{base}.");
        let mut builder = Builder::new();
        let builder = builder.prefix(&prefix).suffix(".part");
        let proof = match self.target {
            Target::Gguf(_) => {
                let file = as_any(builder, 0o666).tempfile_in(parent).map_err(fail)?;
                self.write_file(file.as_file(), progress).map_err(|error| named(error, &name))?;
                let proof = self.prove(file.path(), &name, progress)?;
                let kept =
                    if replace { file.persist(&place) } else { file.persist_noclobber(&place) };
                kept.map_err(|error| fail(error.error))?;
                proof
            }
            Target::Folder => {
                let folder = as_any(builder, 0o777).tempdir_in(parent).map_err(fail)?;
                self.write_folder(folder.path(), progress).map_err(|error| named(error, &name))?;
                let proof = self.prove(folder.path(), &name, progress)?;
                keep_folder(folder, &place).map_err(fail)?;
                proof
            }
        };
        sync_folder(parent).map_err(fail)?;
        Ok(proof)
    }

    fn write_file(
        &self,
        file: &File,
        progress: &(dyn Fn(u64) -> bool + Sync),
    ) -> Result<(), Error> {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        self.write_gguf(&mut out, progress)?;
        finish(out)
    }
}

/// Ends the writing of a file: all of it is on the disk.
pub(super) fn finish(out: BufWriter<impl Synced>) -> Result<(), Error> {
    let fail = |source| Error::Output { file: "the model".to_owned(), source };
    let file = out.into_inner().map_err(|error| fail(error.into_error()))?;
    file.sync().map_err(fail)
}

/// A file that is written.
pub(super) trait Synced: Write {
    fn sync(&self) -> io::Result<()>;
}

impl Synced for &File {
    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }
}

impl Synced for File {
    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }
}

/// An error in writing, with the name that was asked for.
fn named(error: Error, name: &str) -> Error {
    match error {
        // Errors of the producer of a tensor come wrapped.
        Error::Output { source, .. } => match source.downcast::<Error>() {
            Ok(inner) => named(inner, name),
            Err(source) => Error::Output { file: name.to_owned(), source },
        },
        error => error,
    }
}

/// With the permissions of any new file, where there are such: those of temporary ones are narrower.
fn as_any<'b, 'p, 's>(builder: &'b mut Builder<'p, 's>, mode: u32) -> &'b mut Builder<'p, 's> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(mode))
    }
    #[cfg(not(unix))]
    {
        let _ = mode;
        builder
    }
}

/// Gives a folder its name, which may be that of an empty one.
fn keep_folder(folder: TempDir, path: &Path) -> io::Result<()> {
    if path.is_dir() {
        // Nothing is lost: it fails where something is in it.
        fs::remove_dir(path)?;
    }
    fs::rename(folder.path(), path)?;
    // It has another name now.
    let _ = folder.keep();
    Ok(())
}

impl Target {
    /// Whether something can be written here.
    ///
    /// # Errors
    ///
    /// [`Error::Exists`], if it would take the place of something that may not go.
    pub fn check_place(self, path: &Path, replace: bool) -> Result<(), Error> {
        let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
        let found = fs::metadata(path).unwrap_or(found);
        let advice = match self {
            Target::Gguf(_) if !found.is_file() => "it is no file: choose another name",
            Target::Gguf(_) if replace => return Ok(()),
            Target::Gguf(_) => "--force replaces it",
            Target::Folder => match fs::read_dir(path).map(|mut entries| entries.next()) {
                Ok(None) => return Ok(()),
                _ => {
                    "a folder is written where there is none, or an empty one: choose another name"
                }
            },
        };
        Err(Error::Exists { path: path.to_owned(), advice })
    }
}

/// Names last only when the folder that has them is on the disk, too.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}
