//! The environment on Linux: glommio reactors, sockets, devices.
