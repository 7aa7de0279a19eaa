"""From a trained model to a directory that `predictd` serves: export, optimise, convert, and golden examples.

    make tools                                        installs the packages of requirements.txt
    make export MODEL=DIR-or-hub-name TO=models/NAME/1
    PYTHONPATH=models target/tools-venv/bin/python -m tools --help
"""
