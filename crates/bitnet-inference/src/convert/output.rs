//! Files and folders that have their name only when they are whole.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile, TempDir};

use super::{Conversion, Proof, Target};
use crate::Error;

impl Conversion<'_> {
    /// Writes the model, reads it again, and gives it its name when it is proven to be the same; `replace`
    /// says whether something that has the name may go. `progress` is told the bytes of each piece that
    /// was written or read again, twice [`Conversion::size`] in all; what it refuses ends the conversion.
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
        let there = fs::symlink_metadata(path).is_ok();
        if there && !replace {
            return Err(Error::Exists { path: path.to_owned() });
        }
        let name = path.display().to_string();
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let base = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Where it is not removed it shows what it is: the process was ended from outside.
        let prefix = format!(".{base}.");
        let mut builder = Builder::new();
        let builder = builder.prefix(&prefix).suffix(".part");
        match self.target {
            Target::Gguf(_) => {
                let file = as_any(builder, 0o666).tempfile_in(parent).map_err(fail)?;
                self.write_file(file.as_file(), progress).map_err(|error| named(error, &name))?;
                let proof = self.prove(file.path(), &name, progress)?;
                keep_file(file, path, replace).map_err(fail)?;
                sync_folder(parent).map_err(fail)?;
                Ok(proof)
            }
            Target::Folder => {
                let folder = as_any(builder, 0o777).tempdir_in(parent).map_err(fail)?;
                self.write_folder(folder.path(), progress).map_err(|error| named(error, &name))?;
                let proof = self.prove(folder.path(), &name, progress)?;
                keep_folder(folder, path, there).map_err(fail)?;
                sync_folder(parent).map_err(fail)?;
                Ok(proof)
            }
        }
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

fn keep_file(file: NamedTempFile, path: &Path, replace: bool) -> io::Result<()> {
    let kept = if replace { file.persist(path) } else { file.persist_noclobber(path) };
    kept.map(|_| ()).map_err(|error| error.error)
}

fn keep_folder(folder: TempDir, path: &Path, there: bool) -> io::Result<()> {
    let old: Option<PathBuf> = there.then(|| folder.path().with_extension("old"));
    if let Some(old) = &old {
        fs::rename(path, old)?;
    }
    if let Err(error) = fs::rename(folder.path(), path) {
        if let Some(old) = &old {
            fs::rename(old, path)?;
        }
        return Err(error);
    }
    // It has another name now.
    let _ = folder.keep();
    match old {
        Some(old) if old.is_dir() => fs::remove_dir_all(old),
        Some(old) => fs::remove_file(old),
        None => Ok(()),
    }
}

/// Names last only when the folder that has them is on the disk, too.
fn sync_folder(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    File::open(folder)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}
