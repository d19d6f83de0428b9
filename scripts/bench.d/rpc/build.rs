//! The gRPC service, described here instead of in a `.proto`.

fn main() {
    let echo = tonic_build::manual::Method::builder()
        .name("echo")
        .route_name("Echo")
        .input_type("crate::grpc::Text")
        .output_type("crate::grpc::Text")
        .codec_path("tonic_prost::ProstCodec")
        .build();
    let service =
        tonic_build::manual::Service::builder().name("Bench").package("bench").method(echo).build();
    tonic_build::manual::Builder::new().compile(&[service]);
}
