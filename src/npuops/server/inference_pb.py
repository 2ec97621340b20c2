"""The messages of gRPC's inference service (package `inference`, with Triton's extensions) and of its health service.

Of a model's configuration only what this server answers is here. The numbers are the protocol's; a test compares them
with those of Triton's own client.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from npuops.server.message_table import messages

_SERVER: Final = """
ServerLiveRequest:
ServerLiveResponse: live 1 bool
ServerReadyRequest:
ServerReadyResponse: ready 1 bool
ModelReadyRequest: name 1 string, version 2 string
ModelReadyResponse: ready 1 bool
ServerMetadataRequest:
ServerMetadataResponse: name 1 string, version 2 string, extensions 3 string*
ModelMetadataRequest: name 1 string, version 2 string
ModelMetadataResponse: name 1 string, versions 2 string*, platform 3 string, inputs 4 .TensorMetadata*,
    outputs 5 .TensorMetadata*
ModelMetadataResponse.TensorMetadata: name 1 string, datatype 2 string, shape 3 int64*
"""

_INFER: Final = """
InferParameter: parameter_choice|bool_param 1 bool, parameter_choice|int64_param 2 int64,
    parameter_choice|string_param 3 string, parameter_choice|double_param 4 double,
    parameter_choice|uint64_param 5 uint64
InferTensorContents: bool_contents 1 bool*, int_contents 2 int32*, int64_contents 3 int64*, uint_contents 4 uint32*,
    uint64_contents 5 uint64*, fp32_contents 6 float*, fp64_contents 7 double*, bytes_contents 8 bytes*
ModelInferRequest: model_name 1 string, model_version 2 string, id 3 string, parameters 4 {InferParameter},
    inputs 5 .InferInputTensor*, outputs 6 .InferRequestedOutputTensor*, raw_input_contents 7 bytes*
ModelInferRequest.InferInputTensor: name 1 string, datatype 2 string, shape 3 int64*, parameters 4 {InferParameter},
    contents 5 InferTensorContents
ModelInferRequest.InferRequestedOutputTensor: name 1 string, parameters 2 {InferParameter}
ModelInferResponse: model_name 1 string, model_version 2 string, id 3 string, parameters 4 {InferParameter},
    outputs 5 .InferOutputTensor*, raw_output_contents 6 bytes*
ModelInferResponse.InferOutputTensor: name 1 string, datatype 2 string, shape 3 int64*, parameters 4 {InferParameter},
    contents 5 InferTensorContents
ModelStreamInferResponse: error_message 1 string, infer_response 2 ModelInferResponse
"""

_CONFIG: Final = """
enum DataType: TYPE_INVALID 0, TYPE_BOOL 1, TYPE_UINT8 2, TYPE_UINT16 3, TYPE_UINT32 4, TYPE_UINT64 5, TYPE_INT8 6,
    TYPE_INT16 7, TYPE_INT32 8, TYPE_INT64 9, TYPE_FP16 10, TYPE_FP32 11, TYPE_FP64 12, TYPE_STRING 13, TYPE_BF16 14
ModelInstanceGroup: name 1 string, kind 4 ModelInstanceGroup.Kind, count 2 int32, gpus 3 int32*, profile 5 string*,
    passive 7 bool, host_policy 9 string
enum ModelInstanceGroup.Kind: KIND_AUTO 0, KIND_GPU 1, KIND_CPU 2, KIND_MODEL 3
ModelInput: name 1 string, data_type 2 DataType, format 3 ModelInput.Format, dims 4 int64*, is_shape_tensor 6 bool,
    allow_ragged_batch 7 bool, optional 8 bool, is_non_linear_format_io 9 bool
enum ModelInput.Format: FORMAT_NONE 0, FORMAT_NHWC 1, FORMAT_NCHW 2
ModelOutput: name 1 string, data_type 2 DataType, dims 3 int64*, label_filename 4 string, is_shape_tensor 6 bool,
    is_non_linear_format_io 7 bool
ModelVersionPolicy: policy_choice|latest 1 .Latest, policy_choice|all 2 .All, policy_choice|specific 3 .Specific
ModelVersionPolicy.Latest: num_versions 1 uint32
ModelVersionPolicy.All:
ModelVersionPolicy.Specific: versions 1 int64*
ModelQueuePolicy: timeout_action 1 ModelQueuePolicy.TimeoutAction, default_timeout_microseconds 2 uint64,
    allow_timeout_override 3 bool, max_queue_size 4 uint32
enum ModelQueuePolicy.TimeoutAction: REJECT 0, DELAY 1
ModelDynamicBatching: preferred_batch_size 1 int32*, max_queue_delay_microseconds 2 uint64, preserve_ordering 3 bool,
    priority_levels 4 uint64, default_priority_level 5 uint64, default_queue_policy 6 ModelQueuePolicy
ModelEnsembling: step 1 .Step*, max_inflight_requests 2 uint32
ModelEnsembling.Step: model_name 1 string, model_version 2 int64, input_map 3 {string}, output_map 4 {string},
    model_namespace 5 string
ModelParameter: string_value 1 string
ModelTransactionPolicy: decoupled 1 bool
ModelResponseCache: enable 1 bool
ModelConfig: name 1 string, platform 2 string, backend 17 string, runtime 25 string,
    version_policy 3 ModelVersionPolicy, max_batch_size 4 int32, input 5 ModelInput*, output 6 ModelOutput*,
    scheduling_choice|dynamic_batching 11 ModelDynamicBatching,
    scheduling_choice|ensemble_scheduling 15 ModelEnsembling, instance_group 7 ModelInstanceGroup*,
    default_model_filename 8 string, cc_model_filenames 9 {string}, metric_tags 10 {string},
    parameters 14 {ModelParameter}, model_transaction_policy 19 ModelTransactionPolicy,
    response_cache 24 ModelResponseCache
ModelConfigRequest: name 1 string, version 2 string
ModelConfigResponse: config 1 ModelConfig
"""

_STATISTICS: Final = """
ModelStatisticsRequest: name 1 string, version 2 string
StatisticDuration: count 1 uint64, ns 2 uint64
InferStatistics: success 1 StatisticDuration, fail 2 StatisticDuration, queue 3 StatisticDuration,
    compute_input 4 StatisticDuration, compute_infer 5 StatisticDuration, compute_output 6 StatisticDuration,
    cache_hit 7 StatisticDuration, cache_miss 8 StatisticDuration
InferResponseStatistics: compute_infer 1 StatisticDuration, compute_output 2 StatisticDuration,
    success 3 StatisticDuration, fail 4 StatisticDuration, empty_response 5 StatisticDuration,
    cancel 6 StatisticDuration
InferBatchStatistics: batch_size 1 uint64, compute_input 2 StatisticDuration, compute_infer 3 StatisticDuration,
    compute_output 4 StatisticDuration
MemoryUsage: type 1 string, id 2 int64, byte_size 3 uint64
ModelStatistics: name 1 string, version 2 string, last_inference 3 uint64, inference_count 4 uint64,
    execution_count 5 uint64, inference_stats 6 InferStatistics, batch_stats 7 InferBatchStatistics*,
    memory_usage 8 MemoryUsage*, response_stats 9 {InferResponseStatistics}
ModelStatisticsResponse: model_stats 1 ModelStatistics*
"""

_REPOSITORY: Final = """
ModelRepositoryParameter: parameter_choice|bool_param 1 bool, parameter_choice|int64_param 2 int64,
    parameter_choice|string_param 3 string, parameter_choice|bytes_param 4 bytes
RepositoryIndexRequest: repository_name 1 string, ready 2 bool
RepositoryIndexResponse: models 1 .ModelIndex*
RepositoryIndexResponse.ModelIndex: name 1 string, version 2 string, state 3 string, reason 4 string
RepositoryModelLoadRequest: repository_name 1 string, model_name 2 string, parameters 3 {ModelRepositoryParameter}
RepositoryModelLoadResponse:
RepositoryModelUnloadRequest: repository_name 1 string, model_name 2 string, parameters 3 {ModelRepositoryParameter}
RepositoryModelUnloadResponse:
"""

_SHARED_MEMORY: Final = """
SystemSharedMemoryStatusRequest: name 1 string
SystemSharedMemoryStatusResponse: regions 1 {.RegionStatus}
SystemSharedMemoryStatusResponse.RegionStatus: name 1 string, key 2 string, offset 3 uint64, byte_size 4 uint64
SystemSharedMemoryRegisterRequest: name 1 string, key 2 string, offset 3 uint64, byte_size 4 uint64
SystemSharedMemoryRegisterResponse:
SystemSharedMemoryUnregisterRequest: name 1 string
SystemSharedMemoryUnregisterResponse:
CudaSharedMemoryStatusRequest: name 1 string
CudaSharedMemoryStatusResponse: regions 1 {.RegionStatus}
CudaSharedMemoryStatusResponse.RegionStatus: name 1 string, device_id 2 uint64, byte_size 3 uint64
CudaSharedMemoryRegisterRequest: name 1 string, raw_handle 2 bytes, device_id 3 int64, byte_size 4 uint64
CudaSharedMemoryRegisterResponse:
CudaSharedMemoryUnregisterRequest: name 1 string
CudaSharedMemoryUnregisterResponse:
"""

_SETTINGS: Final = """
TraceSettingRequest: settings 1 {.SettingValue}, model_name 2 string
TraceSettingRequest.SettingValue: value 1 string*
TraceSettingResponse: settings 1 {.SettingValue}
TraceSettingResponse.SettingValue: value 1 string*
LogSettingsRequest: settings 1 {.SettingValue}
LogSettingsRequest.SettingValue: parameter_choice|bool_param 1 bool, parameter_choice|uint32_param 2 uint32,
    parameter_choice|string_param 3 string
LogSettingsResponse: settings 1 {.SettingValue}
LogSettingsResponse.SettingValue: parameter_choice|bool_param 1 bool, parameter_choice|uint32_param 2 uint32,
    parameter_choice|string_param 3 string
"""

_HEALTH: Final = """
HealthCheckRequest: service 1 string
HealthCheckResponse: status 1 HealthCheckResponse.ServingStatus
enum HealthCheckResponse.ServingStatus: UNKNOWN 0, SERVING 1, NOT_SERVING 2, SERVICE_UNKNOWN 3
HealthListRequest:
HealthListResponse: statuses 1 {HealthCheckResponse}
"""

SERVICE: Final = "inference.GRPCInferenceService"
HEALTH_SERVICE: Final = "grpc.health.v1.Health"

MESSAGES: Final[Mapping[str, Any]] = messages(
    "inference",
    "\n".join(part.strip() for part in (_SERVER, _INFER, _CONFIG, _STATISTICS, _REPOSITORY, _SHARED_MEMORY, _SETTINGS)),
)
"""Of the inference service: name → class."""

HEALTH_MESSAGES: Final[Mapping[str, Any]] = messages("grpc.health.v1", _HEALTH)
"""Of the health service: name → class."""

ModelInferRequest: Final = MESSAGES["ModelInferRequest"]
ModelInferResponse: Final = MESSAGES["ModelInferResponse"]
ModelStreamInferResponse: Final = MESSAGES["ModelStreamInferResponse"]
HealthCheckRequest: Final = HEALTH_MESSAGES["HealthCheckRequest"]
HealthCheckResponse: Final = HEALTH_MESSAGES["HealthCheckResponse"]
HealthListResponse: Final = HEALTH_MESSAGES["HealthListResponse"]

UNARY_METHODS: Final = (
    "ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer", "ModelConfig",
    "ModelStatistics", "RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload", "SystemSharedMemoryStatus",
    "SystemSharedMemoryRegister", "SystemSharedMemoryUnregister", "CudaSharedMemoryStatus",
    "CudaSharedMemoryRegister", "CudaSharedMemoryUnregister", "TraceSetting", "LogSettings",
)  # fmt: skip
"""Each takes `<name>Request` and answers `<name>Response`. `ModelStreamInfer` is the one that streams."""
