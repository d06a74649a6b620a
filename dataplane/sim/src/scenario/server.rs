//! The scenario's server: reactor 0 accepts and hands connections round, each reactor serves its own.

use std::future::poll_fn;

use ashlar_env::disk::{Disk, Durability};
use ashlar_env::{Clock, Env, Listener, Mesh, Net, ReactorId, Spawn};

use super::PORT;
use super::wire::{REQUEST_BYTES, Request, Verb, reply};
use crate::conformance::{receive, send_all, sleep};
use crate::{Control, DiskId, NodeId, SimAccepted, SimDisk, SimEnv, SimMesh, SimStream};

/// Starts the server's tasks on a fresh node.
pub fn start(control: &Control, server: NodeId, disk: DiskId) {
    for (reactor, mesh) in control.mesh::<SimAccepted>(server).into_iter().enumerate() {
        let listens = (reactor == 0).then(|| mesh.clone());
        control.spawn_on(server, reactor as u16, |env| take(env, mesh, disk));
        if let Some(mesh) = listens {
            control.spawn_on(server, 0, |env| accept(env, mesh));
        }
    }
}

async fn accept(env: SimEnv, mesh: SimMesh<SimAccepted>) {
    let listener = env.listen(([0, 0, 0, 0], PORT).into()).expect("a fresh node has its ports free");
    let mut next = 0;
    loop {
        let Ok((mut accepted, _)) = listener.accept().await else {
            sleep(&env, std::time::Duration::from_millis(1)).await;
            continue;
        };
        let to = ReactorId(next % mesh.reactors());
        next += 1;
        while let Err(back) = mesh.try_send(to, accepted) {
            accepted = back;
            poll_fn(|cx| mesh.poll_room(cx, to)).await;
        }
    }
}

async fn take(env: SimEnv, mesh: SimMesh<SimAccepted>, disk: DiskId) {
    let disk = env.open_disk(disk);
    loop {
        let (_, accepted) = poll_fn(|cx| mesh.poll_recv(cx)).await;
        if let Ok(stream) = env.adopt(accepted) {
            env.spawn(serve(env.clone(), stream, disk.clone()));
        }
    }
}

/// Serves one connection, one request at a time, until it ends or breaks.
async fn serve(env: SimEnv, stream: SimStream, disk: SimDisk) {
    let started = env.now();
    let mut header = [0; REQUEST_BYTES];
    while let Ok(REQUEST_BYTES) = receive(&stream, &mut header).await {
        assert!(env.now() >= started, "time went back");
        let Some(request) = Request::decode(&header) else { return };
        if request.sectors > 64 {
            return;
        }
        let len = request.sectors as usize * 512;
        let start = request.lba.saturating_mul(512);
        let mut data = vec![0; if matches!(request.verb, Verb::Write { .. }) { len } else { 0 }];
        if receive(&stream, &mut data).await != Ok(data.len()) {
            return;
        }
        let mut answer = Vec::new();
        let done = match request.verb {
            Verb::Flush => disk.flush().await.is_ok(),
            Verb::Read => {
                let buf = env.buffers().alloc(len).await;
                disk.read(start, buf).await.map(|buf| answer.extend_from_slice(&buf)).is_ok()
            }
            Verb::Write { fua } => {
                let durability = if fua { Durability::Fua } else { Durability::Cached };
                let mut buf = env.buffers().alloc(len).await;
                buf.copy_from_slice(&data);
                disk.write(start, buf.freeze(), durability).await.is_ok()
            }
        };
        if send_all(&stream, &reply(done)).await.is_err() || send_all(&stream, &answer).await.is_err() {
            return;
        }
    }
}
