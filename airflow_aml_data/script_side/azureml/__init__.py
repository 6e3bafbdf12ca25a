"""Stands in for the retired SDK v1, so that scripts run unmodified.

Inside a step this ``azureml.core`` comes first; by hand, an installed azureml-core does. Other packages that put
modules into ``azureml`` stay reachable.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
