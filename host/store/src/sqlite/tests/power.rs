//! A disk that loses what was not synced when the power is cut.
//!
//! SQLite writes through a file layer. The one here writes to real files, and records for each file what is durable and what
//! was written since. It records the files of the databases that a test names; all other files are not affected.
//!
//! The model: a write or a truncation is durable after a sync of its file, and before that it may be lost, kept, or
//! kept in part, sector by sector and in any order. At the first sync of a new log or journal SQLite syncs the folder, too: then
//! new files are in it for certain, and removed ones are not.

#![expect(unsafe_code, reason = "SQLite's file layer is an interface of C")]

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rusqlite::ffi;

/// Writes of this many bytes are whole or not there.
const SECTOR: usize = 512;

/// A file, as far as it is durable.
#[derive(Clone, Debug, Default)]
struct Image {
    durable: Vec<u8>,
    /// Whether the file is certainly in its folder.
    is_listed: bool,
    is_removed: bool,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>, keeps: &mut impl FnMut() -> bool) {
        match self {
            Change::Truncate(length) => {
                if keeps() {
                    bytes.resize(*length, 0);
                }
            }
            Change::Write(offset, data) => {
                for (number, sector) in data.chunks(SECTOR).enumerate() {
                    if keeps() {
                        let begin = offset + number * SECTOR;
                        bytes.resize(bytes.len().max(begin + sector.len()), 0);
                        bytes[begin..begin + sector.len()].copy_from_slice(sector);
                    }
                }
            }
        }
    }
}

/// What is done at each change, before it: by its number.
type Watch = Box<dyn FnMut(&Files, u64) + Send>;

/// The recorded files, by their paths.
#[derive(Clone, Debug, Default)]
pub(super) struct Files(BTreeMap<String, Image>);

/// A disk, until it is dropped.
pub(super) struct Disk {
    folder: String,
    state: Arc<Mutex<State>>,
}

struct State {
    files: Files,
    changes: u64,
    watch: Watch,
}

impl Disk {
    /// Records the databases in `folder`, and calls `watch` before each change.
    pub(super) fn of(folder: &Path, watch: Watch) -> Disk {
        register();
        let folder = folder.canonicalize().unwrap().to_str().unwrap().to_owned();
        let state = State { files: Files::default(), changes: 0, watch };
        let state = Arc::new(Mutex::new(state));
        lock(&DISKS).insert(folder.clone(), Arc::clone(&state));
        Disk { folder, state }
    }

    /// How many changes there were.
    pub(super) fn changes(&self) -> u64 {
        lock(&self.state).changes
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        lock(&DISKS).remove(&self.folder);
    }
}

impl Files {
    /// Writes to `folder` what is there after a power cut. Of what is not durable, `keeps` says for each part whether it is.
    pub(super) fn after_power_cut(&self, folder: &Path, mut keeps: impl FnMut() -> bool) {
        for (path, image) in &self.0 {
            if (!image.is_listed && !keeps()) || (image.is_removed && keeps()) {
                continue;
            }
            let mut bytes = image.durable.clone();
            for change in &image.pending {
                change.apply(&mut bytes, &mut keeps);
            }
            std::fs::write(folder.join(Path::new(path).file_name().unwrap()), bytes).unwrap();
        }
    }
}

impl State {
    fn change(&mut self, path: &str, change: impl FnOnce(&mut Image)) {
        self.changes += 1;
        (self.watch)(&self.files, self.changes);
        change(self.files.0.entry(path.to_owned()).or_default());
    }
}

/// The disks, by their folders.
static DISKS: Mutex<BTreeMap<String, Arc<Mutex<State>>>> = Mutex::new(BTreeMap::new());

/// The recorded files that are open, by the addresses of SQLite's handles.
static OPEN: OnceLock<Mutex<HashMap<usize, Open>>> = OnceLock::new();

#[derive(Clone)]
struct Open {
    state: Arc<Mutex<State>>,
    path: String,
    /// The system's functions for this file; which these are depends on how it locks.
    methods: &'static ffi::sqlite3_io_methods,
}

/// The system's file layer.
static REAL: OnceLock<Real> = OnceLock::new();

struct Real(ffi::sqlite3_vfs);

// SAFETY: what the pointers lead to is static in SQLite, and never changes.
unsafe impl Send for Real {}
// SAFETY: as above.
unsafe impl Sync for Real {}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open_files() -> MutexGuard<'static, HashMap<usize, Open>> {
    lock(OPEN.get_or_init(Mutex::default))
}

/// Makes this layer the one that SQLite uses from now on.
fn register() {
    REAL.get_or_init(|| {
        // SAFETY: SQLite is initialised; the layers that it knows live as long as the process, and so does ours.
        unsafe {
            assert_eq!(ffi::sqlite3_initialize(), ffi::SQLITE_OK);
            let layer = *ffi::sqlite3_vfs_find(std::ptr::null());
            let mut ours = layer;
            ours.zName = c"power".as_ptr();
            ours.xOpen = Some(open);
            ours.xDelete = Some(remove);
            assert_eq!(ffi::sqlite3_vfs_register(Box::leak(Box::new(ours)), 1), ffi::SQLITE_OK);
            Real(layer)
        }
    });
}

fn real() -> &'static Real {
    // The layer is registered before this is set, but nothing is opened by the thread that registers it.
    REAL.wait()
}

/// The disk that a file belongs to, and its path.
///
/// # Safety
/// `name` must be null or a C string.
unsafe fn recorded(name: *const c_char) -> Option<(Arc<Mutex<State>>, String)> {
    if name.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let path = unsafe { CStr::from_ptr(name) }.to_str().ok()?;
    let folder = Path::new(path).parent()?.to_str()?;
    Some((Arc::clone(lock(&DISKS).get(folder)?), path.to_owned()))
}

unsafe extern "C" fn open(
    layer: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite calls this as it calls the function that is called here, with the same arguments.
    unsafe {
        let recorded = recorded(name);
        let existed = recorded.as_ref().is_some_and(|(_, path)| Path::new(path).exists());
        let result = real().0.xOpen.unwrap()(layer, name, file, flags, out_flags);
        if let (ffi::SQLITE_OK, Some((state, path))) = (result, recorded) {
            let methods = &*(*file).pMethods;
            let mut ours = *methods;
            ours.xClose = Some(close);
            ours.xWrite = Some(write);
            ours.xTruncate = Some(truncate);
            ours.xSync = Some(sync);
            // Few files are opened, so these may stay.
            (*file).pMethods = Box::leak(Box::new(ours));
            if existed {
                // What the test has put there itself is durable.
                let on_disk = || std::fs::read(&path).unwrap();
                let whole = || Image { durable: on_disk(), is_listed: true, ..Image::default() };
                lock(&state).files.0.entry(path.clone()).or_insert_with(whole);
            } else {
                lock(&state).change(&path, |image| *image = Image::default());
            }
            open_files().insert(file as usize, Open { state, path, methods });
        }
        result
    }
}

unsafe extern "C" fn remove(layer: *mut ffi::sqlite3_vfs, name: *const c_char, sync_folder: c_int) -> c_int {
    // SAFETY: as in `open`.
    unsafe {
        let result = real().0.xDelete.unwrap()(layer, name, sync_folder);
        if let (ffi::SQLITE_OK, Some((state, path))) = (result, recorded(name)) {
            let mut state = lock(&state);
            state.change(&path, |image| image.is_removed = true);
            if sync_folder != 0 {
                state.files.0.remove(&path);
            }
        }
        result
    }
}

fn change(file: *mut ffi::sqlite3_file, change: impl FnOnce(&mut Image)) {
    let Open { state, path, .. } = opened(file);
    lock(&state).change(&path, change);
}

fn opened(file: *mut ffi::sqlite3_file) -> Open {
    open_files().get(&(file as usize)).cloned().expect("the file was opened here")
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    let opened = open_files().remove(&(file as usize)).expect("the file was opened here");
    // SAFETY: as in `open`.
    unsafe { opened.methods.xClose.unwrap()(file) }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    length: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: as in `open`; SQLite hands over `length` bytes.
    unsafe {
        let written = std::slice::from_raw_parts(bytes.cast::<u8>(), usize::try_from(length).unwrap());
        let offset_of = usize::try_from(offset).unwrap();
        change(file, |image| image.pending.push(Change::Write(offset_of, written.to_vec())));
        opened(file).methods.xWrite.unwrap()(file, bytes, length, offset)
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, length: i64) -> c_int {
    change(file, |image| image.pending.push(Change::Truncate(usize::try_from(length).unwrap())));
    // SAFETY: as in `open`.
    unsafe { opened(file).methods.xTruncate.unwrap()(file, length) }
}

/// The real files need no sync, since this machine keeps its power.
unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    let Open { state, path, .. } = opened(file);
    let mut state = lock(&state);
    let mut is_new = false;
    state.change(&path, |image| {
        for change in std::mem::take(&mut image.pending) {
            change.apply(&mut image.durable, &mut || true);
        }
        is_new = !image.is_listed;
    });
    if is_new {
        state.files.0.retain(|_, image| !image.is_removed);
        for image in state.files.0.values_mut() {
            image.is_listed = true;
        }
    }
    ffi::SQLITE_OK
}
