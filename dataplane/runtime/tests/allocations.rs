//! Nothing is allocated per I/O. A process of its own, as it counts the allocations of all threads.

use std::alloc::{GlobalAlloc, Layout, System};
use std::future::poll_fn;
use std::io::{IoSlice, IoSliceMut};
use std::sync::atomic::{AtomicU64, Ordering};

use ashlar_env::disk::{Disk, Durability};
use ashlar_env::{Env, Listener, Mesh, Net, ReactorId, Stream};
use ashlar_runtime::{Device, MeshEnd, OpenDevice, OpenOptions, ReactorEnv, Runtime, RuntimeConfig, Spin};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The allocations of 1000 turns of `turn`, after 100 to warm up.
async fn counted(mut turn: impl AsyncFnMut()) -> u64 {
    for _ in 0..100 {
        turn().await;
    }
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..1000 {
        turn().await;
    }
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

async fn disk_turn(env: &ReactorEnv, disk: &Device) {
    let buf = disk.read(4096, env.buffers().try_alloc(4096).unwrap()).await.unwrap();
    disk.write(8192, buf.freeze(), Durability::Cached).await.unwrap();
}

async fn socket_turn(near: &impl Stream, far: &impl Stream) {
    let sent = poll_fn(|cx| near.poll_send(cx, &[IoSlice::new(&[1; 72]), IoSlice::new(&[2; 4096])])).await;
    let mut left = sent.unwrap();
    let mut buf = [0; 8192];
    while left > 0 {
        left -= poll_fn(|cx| far.poll_recv(cx, &mut [IoSliceMut::new(&mut buf)])).await.unwrap();
    }
}

async fn mesh_turn(mesh: &MeshEnd<u64>) {
    mesh.try_send(ReactorId(0), 7).unwrap();
    assert_eq!(poll_fn(|cx| mesh.poll_recv(cx)).await.1, 7);
}

#[test]
fn input_and_output_allocate_nothing() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let open = OpenDevice::create(&folder.path().join("image"), 1 << 20, OpenOptions::default()).unwrap();
    // A reactor that goes to sleep allocates for that.
    let config = RuntimeConfig { spin: Spin::Always, buffer_bytes: 1 << 20, ..RuntimeConfig::default() };
    let runtime = Runtime::<u64>::start(config).unwrap();
    let answer = runtime.reactors()[0].call(|env, mesh| async move {
        let file = open.attach(&env).unwrap();
        let (memory, null) = (Device::memory(1 << 20), Device::null(1 << 20));
        let listener = env.listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let near = env.connect(listener.local_addr()).await.unwrap();
        let far = env.adopt(listener.accept().await.unwrap().0).unwrap();
        [
            counted(async || disk_turn(&env, &file).await).await,
            counted(async || disk_turn(&env, &memory).await).await,
            counted(async || disk_turn(&env, &null).await).await,
            counted(async || socket_turn(&near, &far).await).await,
            counted(async || mesh_turn(&mesh).await).await,
        ]
    });
    assert_eq!(answer.wait(), Ok([0; 5]), "of file, memory, null, socket, link");
}
