//! Reflection: what a program without proto files is told of the services that are answered here.

use std::{fs, sync::atomic::Ordering::SeqCst, time::Duration};

use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use tokio::time::{Instant, timeout};
use tokio_stream::StreamExt;
use tonic::transport::Endpoint;
use tonic_reflection::pb::{v1, v1alpha};
use upbeat::grpc::{self, Question, Reply, ServerReflectionRequest, ServerReflectionResponse};

use crate::fixture::{
    caller::{Caller, read},
    echo::Echo,
    eventually,
    proxy::{Proxy, yaml},
};

const INFO: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// A proxy that answers reflection, and more sections.
async fn proxy(echo: &Echo, more: &str) -> Proxy {
    let more = format!("health: {{ reflection: true }}\n{more}");
    let proxy = Proxy::start(&yaml(&[echo.address()], "{ tcp: {} }", &more)).await;
    proxy.wait_serving().await;
    proxy
}

fn symbol(name: &str) -> Vec<u8> {
    let question = Some(Question::FileContainingSymbol(name.to_owned()));
    grpc::encode(&ServerReflectionRequest { host: String::new(), question }).to_vec()
}

/// What tonic's client, made from the real proto file, reads in the answers to its questions.
macro_rules! ask {
    ($version:ident, $proxy:expr, $questions:expr) => {{
        use $version::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest,
        };
        let address = format!("http://{}", $proxy.address("otlp"));
        let channel = Endpoint::from_shared(address).unwrap().connect().await.unwrap();
        let mut client = ServerReflectionClient::new(channel);
        let questions = $questions.map(|question: MessageRequest| ServerReflectionRequest {
            host: "h".to_owned(),
            message_request: Some(question),
        });
        let stream = tokio_stream::iter(questions.clone());
        let answers = client.server_reflection_info(stream).await.unwrap().into_inner();
        let answers: Vec<_> = answers.map(Result::unwrap).collect().await;
        for (question, answer) in questions.into_iter().zip(&answers) {
            assert_eq!((&*answer.valid_host, &answer.original_request), ("h", &Some(question)));
        }
        answers.into_iter().map(|answer| answer.message_response.unwrap()).collect::<Vec<_>>()
    }};
}

macro_rules! services_are_listed {
    ($version:ident, $proxy:expr) => {{
        use $version::server_reflection_response::MessageResponse;
        let answers = ask!($version, $proxy, [MessageRequest::ListServices("*".to_owned())]);
        let [MessageResponse::ListServicesResponse(list)] = &answers[..] else {
            panic!("{answers:?}");
        };
        let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
        let wanted = [
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        ];
        assert_eq!(names, wanted);
    }};
}

#[tokio::test]
async fn services_are_listed_in_both_versions() {
    let echo = Echo::start().await;
    let proxy = proxy(&echo, "").await;
    services_are_listed!(v1, proxy);
    services_are_listed!(v1alpha, proxy);
    assert_eq!(echo.seen().streams.load(SeqCst), 0, "no backend is asked");
    proxy.stop().await;
}

#[tokio::test]
async fn each_question_of_a_stream_is_answered_in_its_turn() {
    use v1::{
        ExtensionRequest, server_reflection_request::MessageRequest as Ask,
        server_reflection_response::MessageResponse as Said,
    };
    let echo = Echo::start().await;
    let proxy = proxy(&echo, "").await;
    let (health, none) = (Some("grpc/health/v1/health.proto"), None);
    let reflection = Some("grpc/reflection/v1/reflection.proto");
    let alpha = Some("grpc/reflection/v1alpha/reflection.proto");
    let symbol = |name: &str| Ask::FileContainingSymbol(name.to_owned());
    let file = |name: &str| Ask::FileByFilename(name.to_owned());
    let extension = ExtensionRequest {
        containing_type: "grpc.health.v1.HealthCheckRequest".to_owned(),
        extension_number: 1,
    };
    let questions = [
        (file("grpc/health/v1/health.proto"), health),
        (file("health.proto"), none),
        (symbol("grpc.health.v1.Health"), health),
        (symbol("grpc.health.v1.Health.Watch"), health),
        (symbol("grpc.health.v1.HealthListResponse.StatusesEntry.value"), health),
        (symbol("grpc.health.v1.HealthCheckResponse.ServingStatus"), health),
        (symbol("grpc.health.v1.HealthCheckResponse.NOT_SERVING"), health),
        (symbol("grpc.health.v1.HealthCheckResponse.ServingStatus.NOT_SERVING"), none),
        (symbol("grpc.health.v1"), none),
        (symbol("opentelemetry.proto.collector.trace.v1.TraceService"), none),
        (symbol("grpc.reflection.v1.ServerReflection"), reflection),
        (symbol("grpc.reflection.v1.ServerReflectionRequest.message_request"), reflection),
        (symbol("grpc.reflection.v1alpha.ErrorResponse"), alpha),
        (Ask::FileContainingExtension(extension), none),
        (Ask::AllExtensionNumbersOfType("grpc.health.v1.Health".to_owned()), none),
    ];
    let answers = ask!(v1, proxy, questions.clone().map(|(question, _)| question));
    assert_eq!(answers.len(), questions.len());
    for ((question, wanted), answer) in questions.iter().zip(answers) {
        match (wanted, answer) {
            (Some(name), Said::FileDescriptorResponse(files)) => {
                let [file] = &files.file_descriptor_proto[..] else { panic!("{question:?}") };
                let file = FileDescriptorProto::decode(file.as_slice()).unwrap();
                assert_eq!(file.name(), *name, "{question:?}");
            }
            (None, Said::ErrorResponse(error)) => assert_eq!(error.error_code, 5, "{question:?}"),
            (wanted, answer) => panic!("{question:?}: {answer:?}, wanted {wanted:?}"),
        }
    }
    let name = "grpc.health.v1.HealthCheckRequest".to_owned();
    let answers = ask!(v1, proxy, [Ask::AllExtensionNumbersOfType(name.clone())]);
    let [Said::AllExtensionNumbersResponse(numbers)] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!((&numbers.base_type_name, numbers.extension_number.len()), (&name, 0));
    proxy.stop().await;
}

/// The only file of a set that protoc made, without what a program has no use for.
fn described(set: &[u8]) -> FileDescriptorProto {
    let mut set = FileDescriptorSet::decode(set).unwrap();
    let mut file = set.file.pop().unwrap();
    assert!(set.file.is_empty());
    (file.options, file.source_code_info) = (None, None);
    file
}

#[test]
fn files_are_described_as_protoc_does() {
    use grpc::descriptor;
    for (ours, theirs) in [
        (descriptor::reflection(), v1::FILE_DESCRIPTOR_SET),
        (descriptor::reflection_alpha(), v1alpha::FILE_DESCRIPTOR_SET),
    ] {
        let mut theirs = described(theirs);
        theirs.name = ours.name.clone();
        assert_eq!(ours, theirs);
    }
    let mut theirs = described(tonic_health::pb::FILE_DESCRIPTOR_SET);
    let mut ours = descriptor::health();
    theirs.name = ours.name.clone();
    // What tonic-health does not have yet: of List, grpcurl compares all in tests/peers.
    let text = fs::read_to_string("tests/peers/health.proto").unwrap();
    assert!(text.contains("rpc List(HealthListRequest) returns (HealthListResponse);"));
    if theirs.service[0].method.len() == 2 {
        ours.service[0].method.retain(|method| method.name() != "List");
        ours.message_type.retain(|message| !message.name().starts_with("HealthList"));
    }
    assert_eq!(ours, theirs);
}

#[tokio::test]
async fn reflection_that_was_not_asked_for_is_left_to_the_backend() {
    let echo = Echo::start().await;
    let proxy = Proxy::in_front_of(&[echo.address()]).await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let call = caller.open(INFO).await.unwrap();
    eventually("the backend has the call", async || echo.seen().streams.load(SeqCst) == 1).await;
    drop(call);
    proxy.stop().await;
}

#[tokio::test]
async fn a_stream_that_asks_no_more_is_ended() {
    let echo = Echo::start().await;
    let proxy = proxy(&echo, "limits: { handshake_timeout: 2s }").await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let begun = Instant::now();
    let mut call = caller.open(INFO).await.unwrap();
    let (head, mut body) = call.response.await.unwrap().into_parts();
    assert_eq!(head.status, 200, "before anything is asked");
    let question = symbol("grpc.health.v1.Health");
    let (first, second) = question.split_at(9);
    call.request.send_data(first.to_vec().into(), false).unwrap();
    let early = timeout(Duration::from_millis(1200), body.data()).await;
    assert!(early.is_err(), "no answer before the question is whole: {early:?}");
    call.request.send_data(second.to_vec().into(), false).unwrap();
    let answer = body.data().await.unwrap().unwrap();
    let answer: ServerReflectionResponse = grpc::decode_unary(&answer, None, 1 << 20).unwrap();
    assert!(matches!(answer.reply, Some(Reply::Files(_))), "{answer:?}");
    assert!(body.data().await.is_none());
    let trailers = body.trailers().await.unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
    assert!(begun.elapsed() >= Duration::from_millis(3000), "the question gave it more time");
    proxy.stop().await;
}

#[tokio::test]
async fn an_open_stream_does_not_hold_up_a_drain() {
    let echo = Echo::start().await;
    // The drain has 2 s, silence alone would take a minute.
    let proxy = proxy(&echo, "limits: { handshake_timeout: 60s }").await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut call = caller.open(INFO).await.unwrap();
    call.request.send_data(symbol("grpc.health.v1.Health").into(), false).unwrap();
    let mut body = call.response.await.unwrap().into_body();
    body.data().await.unwrap().unwrap();
    proxy.shutdown.drain.cancel();
    assert!(body.data().await.is_none());
    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    drop(call.request);
    proxy.stop().await;
}

#[tokio::test]
async fn answers_that_are_not_read_are_given_up() {
    let echo = Echo::start().await;
    let proxy = proxy(&echo, "limits: { handshake_timeout: 300ms }").await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    let mut call = caller.open(INFO).await.unwrap();
    let (_, mut body) = call.response.await.unwrap().into_parts();
    // More than the stream's window of 64 KiB, and less than is too much.
    let questions = symbol("grpc.reflection.v1.ServerReflection").repeat(50);
    call.request.send_data(questions.into(), true).unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    let error = loop {
        match body.data().await.expect("a message was cut") {
            Ok(data) => body.flow_control().release_capacity(data.len()).unwrap(),
            Err(error) => break error,
        }
    };
    assert_eq!(error.reason(), Some(h2::Reason::CANCEL));
    proxy.stop().await;
}

#[tokio::test]
async fn a_stream_that_asks_for_too_much_or_for_nothing_gets_a_status() {
    let echo = Echo::start().await;
    let proxy = proxy(&echo, "").await;
    let mut caller = Caller::connect(proxy.address("otlp")).await;
    for (body, code) in [
        (vec![], 0),
        (vec![0, 0, 0], 13),
        (vec![0; 5], 3),
        (vec![0, 0xff, 0xff, 0xff, 0xff], 8),
        (vec![0, 0, 0, 0, 1, 0xff], 13),
        (symbol(&"a".repeat(4000)), 0),
        (symbol(&"a".repeat(5000)), 8),
        (symbol("grpc.health.v1.Health").repeat(10), 0),
    ] {
        let mut call = caller.open(INFO).await.unwrap();
        call.request.send_data(body.clone().into(), true).unwrap();
        let response = call.response.await.unwrap();
        let reply = read(response).await.unwrap();
        assert_eq!(reply.code(), code, "{} bytes", body.len());
        if code == 0 && body.len() < 4000 {
            let answers = body.len() / symbol("grpc.health.v1.Health").len();
            assert_eq!(reply.body.len() > 500 * answers, answers > 0, "{}", reply.body.len());
        }
    }
    // Answers of far more than the stream's window, of which none is taken: one is cut.
    let mut call = caller.open(INFO).await.unwrap();
    let many = symbol("grpc.reflection.v1.ServerReflection").repeat(300);
    call.request.send_data(many.into(), true).unwrap();
    let error = read(call.response.await.unwrap()).await.unwrap_err();
    assert_eq!(error.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM));
    proxy.stop().await;
}
