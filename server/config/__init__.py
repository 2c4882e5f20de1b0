"""The configuration of one process: environment variables, read once, checked, and passed down."""

from server.config.process import CALLS as CALLS
from server.config.process import VARIABLES as VARIABLES
from server.config.process import Config as Config
from server.config.process import LogConfig as LogConfig
from server.config.process import shared_file as shared_file
from server.config.provider import AzureSpeechConfig as AzureSpeechConfig
from server.config.provider import ProviderConfig as ProviderConfig
