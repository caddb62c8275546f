//! The messages of reflection (grpc/reflection/v1/reflection.proto). Those of `v1alpha` are the
//! same on the wire.

/// One question.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ServerReflectionRequest {
    /// The server's name as the client knows it; only said again in the answer.
    #[prost(string, tag = "1")]
    pub host: String,
    /// What is asked.
    #[prost(oneof = "Question", tags = "3, 4, 5, 6, 7")]
    pub question: Option<Question>,
}

/// What is asked.
#[derive(Clone, PartialEq, Eq, Hash, prost::Oneof)]
pub enum Question {
    /// A file by its name.
    #[prost(string, tag = "3")]
    FileByFilename(String),
    /// The file that has a fully qualified name.
    #[prost(string, tag = "4")]
    FileContainingSymbol(String),
    /// The file that has an extension.
    #[prost(message, tag = "5")]
    FileContainingExtension(ExtensionRequest),
    /// The numbers of a message's extensions.
    #[prost(string, tag = "6")]
    AllExtensionNumbersOfType(String),
    /// The names of all services; the text means nothing.
    #[prost(string, tag = "7")]
    ListServices(String),
}

/// An extension by its number.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ExtensionRequest {
    /// The message that it extends.
    #[prost(string, tag = "1")]
    pub containing_type: String,
    /// Its number.
    #[prost(int32, tag = "2")]
    pub extension_number: i32,
}

/// The answer to one question.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ServerReflectionResponse {
    /// The question's host.
    #[prost(string, tag = "1")]
    pub valid_host: String,
    /// The question.
    #[prost(message, optional, tag = "2")]
    pub original_request: Option<ServerReflectionRequest>,
    /// What is answered.
    #[prost(oneof = "Reply", tags = "4, 5, 6, 7")]
    pub reply: Option<Reply>,
}

/// What is answered.
#[derive(Clone, PartialEq, Eq, Hash, prost::Oneof)]
pub enum Reply {
    /// To the three questions about files.
    #[prost(message, tag = "4")]
    Files(FileDescriptorResponse),
    /// To that about extensions.
    #[prost(message, tag = "5")]
    ExtensionNumbers(ExtensionNumberResponse),
    /// To that about services.
    #[prost(message, tag = "6")]
    Services(ListServiceResponse),
    /// To any of them.
    #[prost(message, tag = "7")]
    Error(ErrorResponse),
}

/// A file, and those that it imports.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct FileDescriptorResponse {
    /// A `google.protobuf.FileDescriptorProto` each.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub file_descriptor_proto: Vec<Vec<u8>>,
}

/// A message's extensions.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ExtensionNumberResponse {
    /// The message.
    #[prost(string, tag = "1")]
    pub base_type_name: String,
    /// Their numbers.
    #[prost(int32, repeated, tag = "2")]
    pub extension_number: Vec<i32>,
}

/// The services.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ListServiceResponse {
    /// One each.
    #[prost(message, repeated, tag = "1")]
    pub service: Vec<ServiceResponse>,
}

/// A service.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ServiceResponse {
    /// Its full name.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ErrorResponse {
    /// A [`super::Code`].
    #[prost(int32, tag = "1")]
    pub error_code: i32,
    /// In words.
    #[prost(string, tag = "2")]
    pub error_message: String,
}
