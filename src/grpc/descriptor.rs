//! The files that reflection shows, as protoc describes them, but for comments and for the options
//! of code generators. Written here as a table: protoc is not needed for a build, and nobody has to
//! trust bytes that cannot be read. The tests compare it with what protoc made of the same files.

use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, MessageOptions, MethodDescriptorProto, OneofDescriptorProto,
    ServiceDescriptorProto,
    field_descriptor_proto::{Label, Type},
};

/// `grpc/health/v1/health.proto`
pub fn health() -> FileDescriptorProto {
    let scope = Scope("grpc.health.v1");
    let (request, response) = ("HealthCheckRequest", "HealthCheckResponse");
    let statuses = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
    let status = scope.field(1, "status", Of::Enum("HealthCheckResponse.ServingStatus"));
    let response_type = DescriptorProto {
        enum_type: vec![enumeration("ServingStatus", &statuses)],
        ..message(response, vec![status])
    };
    let statuses =
        repeated(scope.field(1, "statuses", Of::Message("HealthListResponse.StatusesEntry")));
    let entry = DescriptorProto {
        options: Some(MessageOptions { map_entry: Some(true), ..MessageOptions::default() }),
        ..message(
            "StatusesEntry",
            vec![scope.field(1, "key", Of::Text), scope.field(2, "value", Of::Message(response))],
        )
    };
    let list_type = DescriptorProto {
        nested_type: vec![entry],
        ..message("HealthListResponse", vec![statuses])
    };
    let check = scope.method("Check", request, response);
    let watch = MethodDescriptorProto {
        server_streaming: Some(true),
        ..scope.method("Watch", request, response)
    };
    let list = scope.method("List", "HealthListRequest", "HealthListResponse");
    let messages = vec![
        message(request, vec![scope.field(1, "service", Of::Text)]),
        response_type,
        message("HealthListRequest", vec![]),
        list_type,
    ];
    scope.file("grpc/health/v1/health.proto", messages, "Health", vec![check, list, watch])
}

/// `grpc/reflection/v1/reflection.proto`
pub fn reflection() -> FileDescriptorProto {
    reflection_in("grpc/reflection/v1/reflection.proto", Scope("grpc.reflection.v1"))
}

/// `grpc/reflection/v1alpha/reflection.proto`
pub fn reflection_alpha() -> FileDescriptorProto {
    reflection_in("grpc/reflection/v1alpha/reflection.proto", Scope("grpc.reflection.v1alpha"))
}

fn reflection_in(file: &str, scope: Scope) -> FileDescriptorProto {
    let (request, response) = ("ServerReflectionRequest", "ServerReflectionResponse");
    let field = |number, name, of| scope.field(number, name, of);
    let one = |number, name, of| FieldDescriptorProto {
        oneof_index: Some(0),
        ..scope.field(number, name, of)
    };
    let many = |number, name, of| repeated(scope.field(number, name, of));
    let questions = vec![
        field(1, "host", Of::Text),
        one(3, "file_by_filename", Of::Text),
        one(4, "file_containing_symbol", Of::Text),
        one(5, "file_containing_extension", Of::Message("ExtensionRequest")),
        one(6, "all_extension_numbers_of_type", Of::Text),
        one(7, "list_services", Of::Text),
    ];
    let answers = vec![
        field(1, "valid_host", Of::Text),
        field(2, "original_request", Of::Message(request)),
        one(4, "file_descriptor_response", Of::Message("FileDescriptorResponse")),
        one(5, "all_extension_numbers_response", Of::Message("ExtensionNumberResponse")),
        one(6, "list_services_response", Of::Message("ListServiceResponse")),
        one(7, "error_response", Of::Message("ErrorResponse")),
    ];
    let extension =
        vec![field(1, "containing_type", Of::Text), field(2, "extension_number", Of::Number)];
    let numbers =
        vec![field(1, "base_type_name", Of::Text), many(2, "extension_number", Of::Number)];
    let error = vec![field(1, "error_code", Of::Number), field(2, "error_message", Of::Text)];
    let messages = vec![
        choice(message(request, questions), "message_request"),
        message("ExtensionRequest", extension),
        choice(message(response, answers), "message_response"),
        message("FileDescriptorResponse", vec![many(1, "file_descriptor_proto", Of::Bytes)]),
        message("ExtensionNumberResponse", numbers),
        message("ListServiceResponse", vec![many(1, "service", Of::Message("ServiceResponse"))]),
        message("ServiceResponse", vec![field(1, "name", Of::Text)]),
        message("ErrorResponse", error),
    ];
    let info = MethodDescriptorProto {
        client_streaming: Some(true),
        server_streaming: Some(true),
        ..scope.method("ServerReflectionInfo", request, response)
    };
    scope.file(file, messages, "ServerReflection", vec![info])
}

/// What a field holds. Types are named within the file's package.
#[derive(Clone, Copy)]
enum Of {
    Text,
    Bytes,
    Number,
    Enum(&'static str),
    Message(&'static str),
}

/// A package, in which names are looked up.
#[derive(Clone, Copy)]
struct Scope(&'static str);

impl Scope {
    fn name(self, name: &str) -> Option<String> {
        Some(format!(".{}.{name}", self.0))
    }

    fn field(self, number: i32, name: &str, of: Of) -> FieldDescriptorProto {
        let (kind, type_name) = match of {
            Of::Text => (Type::String, None),
            Of::Bytes => (Type::Bytes, None),
            Of::Number => (Type::Int32, None),
            Of::Enum(name) => (Type::Enum, self.name(name)),
            Of::Message(name) => (Type::Message, self.name(name)),
        };
        FieldDescriptorProto {
            name: Some(name.to_owned()),
            number: Some(number),
            label: Some(Label::Optional.into()),
            r#type: Some(kind.into()),
            type_name,
            json_name: Some(json_name(name)),
            ..FieldDescriptorProto::default()
        }
    }

    fn method(self, name: &str, input: &str, output: &str) -> MethodDescriptorProto {
        MethodDescriptorProto {
            name: Some(name.to_owned()),
            input_type: self.name(input),
            output_type: self.name(output),
            ..MethodDescriptorProto::default()
        }
    }

    fn file(
        self,
        name: &str,
        messages: Vec<DescriptorProto>,
        service: &str,
        methods: Vec<MethodDescriptorProto>,
    ) -> FileDescriptorProto {
        FileDescriptorProto {
            name: Some(name.to_owned()),
            package: Some(self.0.to_owned()),
            message_type: messages,
            service: vec![ServiceDescriptorProto {
                name: Some(service.to_owned()),
                method: methods,
                options: None,
            }],
            syntax: Some("proto3".to_owned()),
            ..FileDescriptorProto::default()
        }
    }
}

fn message(name: &str, field: Vec<FieldDescriptorProto>) -> DescriptorProto {
    DescriptorProto { name: Some(name.to_owned()), field, ..DescriptorProto::default() }
}

/// A message whose fields with a `oneof_index` are the alternatives of `name`.
fn choice(message: DescriptorProto, name: &str) -> DescriptorProto {
    let name = Some(name.to_owned());
    DescriptorProto { oneof_decl: vec![OneofDescriptorProto { name, options: None }], ..message }
}

fn repeated(field: FieldDescriptorProto) -> FieldDescriptorProto {
    FieldDescriptorProto { label: Some(Label::Repeated.into()), ..field }
}

/// Values in the order of their numbers, from 0 on.
fn enumeration(name: &str, values: &[&str]) -> EnumDescriptorProto {
    let value = |(number, name): (i32, &&str)| EnumValueDescriptorProto {
        name: Some((*name).to_owned()),
        number: Some(number),
        options: None,
    };
    EnumDescriptorProto {
        name: Some(name.to_owned()),
        value: (0..).zip(values).map(value).collect(),
        ..EnumDescriptorProto::default()
    }
}

/// `list_services` is `listServices` in JSON.
fn json_name(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let (initial, rest) = word.split_at(1);
        name + &initial.to_ascii_uppercase() + rest
    })
}
