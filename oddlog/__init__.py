"""What training, serving and monitoring stand on. Floors, each importing only those below it:

notebook  >  connectors, stack  >  scoring  >  detectors  >  simulation  >  features  >  events  >  settings  >  errors
"""

__version__ = "0.1.0"
