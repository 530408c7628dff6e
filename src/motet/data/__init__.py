"""Tables: reading, what each column is for, splits, and batches with missing labels."""

from motet.data._batch import Batch, TableRows
from motet.data._features import FeatureEncoder, Features
from motet.data._fingerprint import fingerprint
from motet.data._infer_task import infer_task, infer_tasks
from motet.data._labels import encode_targets, fit_tasks, label_arrays
from motet.data._leaks import Leak, find_leaks
from motet.data._schema import ROLES, Column, Schema, infer_schema
from motet.data._source import read_table
from motet.data._split import Split, split_rows
from motet.data._write import write_table

__all__ = [
    "ROLES",
    "Batch",
    "Column",
    "FeatureEncoder",
    "Features",
    "Leak",
    "Schema",
    "Split",
    "TableRows",
    "encode_targets",
    "find_leaks",
    "fingerprint",
    "fit_tasks",
    "infer_schema",
    "infer_task",
    "infer_tasks",
    "label_arrays",
    "read_table",
    "split_rows",
    "write_table",
]
