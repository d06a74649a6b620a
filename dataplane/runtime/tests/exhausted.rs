//! A process without a free descriptor. A process of its own, as it takes them all.

use std::fs::File;
use std::net::TcpStream as StdStream;
use std::time::Duration;

use ashlar_env::net::NetError;
use ashlar_env::{Clock, Listener, Net};
use ashlar_runtime::{Runtime, RuntimeConfig};

#[test]
fn without_descriptors_connections_wait_and_are_accepted_later() {
    let limit = libc::rlimit { rlim_cur: 128, rlim_max: 128 };
    // SAFETY: `limit` is valid for reads.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
    let runtime =
        Runtime::<()>::start(RuntimeConfig { buffer_bytes: 0, ..RuntimeConfig::default() }).unwrap();
    let answer = runtime.reactors()[0].call(|env, _| async move {
        let listener = env.listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr();
        let peer = StdStream::connect(address).unwrap();
        let taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        let refused = listener.accept().await.map(drop);
        assert!(matches!(refused, Err(NetError::Exhausted(_))), "{refused:?}");
        let refused = env.connect(address).await.map(drop);
        assert!(matches!(refused, Err(NetError::Exhausted(_))), "{refused:?}");
        let refused = env.listen("127.0.0.1:0".parse().unwrap()).map(drop);
        assert!(matches!(refused, Err(NetError::Exhausted(_))), "{refused:?}");
        drop(taken);
        env.sleep_until(env.now().plus(Duration::from_millis(1))).await;
        let (accepted, from) = listener.accept().await.unwrap();
        assert_eq!(from, peer.local_addr().unwrap());
        env.adopt(accepted).map(drop)
    });
    assert_eq!(answer.wait(), Ok(Ok(())));
}
