"""From a trained model to a directory that `predictd` serves: export, optimise, convert, golden.

    make tools                                        installs the packages of requirements.txt
    PYTHONPATH=models target/tools-venv/bin/python -m tools --help
"""
