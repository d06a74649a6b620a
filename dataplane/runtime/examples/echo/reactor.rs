//! The server on a reactor.

use std::future::poll_fn;
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::time::Duration;

use ashlar_env::{Listener, Net, Spawn, Stream};
use ashlar_runtime::{Runtime, RuntimeConfig, Spin, TcpStream};

use crate::server::Session;

pub struct Server {
    pub address: SocketAddr,
    _runtime: Runtime<()>,
}

impl Server {
    pub fn start(core: usize) -> Self {
        let config = RuntimeConfig {
            cores: vec![core],
            spin: Spin::Adaptive(Duration::from_micros(50)),
            buffer_bytes: 1 << 20,
            ..RuntimeConfig::default()
        };
        let runtime = Runtime::<()>::start(config).expect("the runtime starts");
        let address = runtime.reactors()[0].call(|env, _| async move {
            let listener = env.listen("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = listener.local_addr();
            let server = env.clone();
            env.spawn(async move {
                while let Ok((accepted, _)) = listener.accept().await {
                    let stream = server.adopt(accepted).unwrap();
                    server.spawn(serve(stream));
                }
            });
            address
        });
        Self { address: address.wait().expect("the server listens"), _runtime: runtime }
    }
}

async fn serve(stream: TcpStream) {
    let mut session = Session::new();
    let mut parts = Vec::new();
    loop {
        while session.is_due() {
            session.parts(&mut parts);
            match poll_fn(|cx| stream.poll_send(cx, &parts)).await {
                Ok(len) => session.sent(len),
                Err(_) => return,
            }
        }
        match poll_fn(|cx| stream.poll_recv(cx, &mut [IoSliceMut::new(session.room())])).await {
            Ok(len @ 1..) => session.received(len),
            _ => return,
        }
    }
}
